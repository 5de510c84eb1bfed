"""What inference servers say when they fail becomes OpenAI's error object (L16)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.inference.failures import broken, error_object, excerpt, in_band, refused, relayed


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"error": {"message": "no"}}, "no"),
        ({"error": "no"}, "no"),
        ({"object": "error", "message": "no"}, "no"),
        ({"message": "no"}, "no"),
        ({"detail": "no"}, "no"),
        ({"detail": [{"msg": "no"}]}, '[{"msg":"no"}]'),
        ({"error": {"detail": "no"}}, "no"),
        ({"title": "no", "status": 400}, "no"),
        ([{"error": {"message": "no"}}], "no"),
        ("no", "no"),
        ({"error": {"message": {"a": 1}}}, '{"a":1}'),
        ({"error": {}}, 'inference server "it" answered 400 without saying why'),
        (None, 'inference server "it" answered 400 without saying why'),
    ],
)
def test_the_message_is_found_wherever_it_is(said: Any, message: str) -> None:
    error = refused("it", 400, body(said))
    assert error.message == message
    assert error.body()["error"]["message"] == message
    assert error.body()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 503, 529])
def test_the_status_stays(status: int) -> None:
    assert refused("it", status, body({"error": {"message": "no"}})).status == status


@pytest.mark.parametrize(
    ("status", "code", "message", "told"),
    [
        (400, None, "no", None),
        (400, 400, "no", None),
        (400, "", "no", None),
        (400, "bad_schema", "no", "bad_schema"),
        (400, 1234, "no", "1234"),
        (404, None, "The model `x` does not exist", "model_not_found"),
        (404, 404, "No such route", "not_found"),
        (429, 429, "slow down", "rate_limit_exceeded"),
        (500, 500, "no", "inference_server_error"),
        (502, {"a": 1}, "no", "inference_server_error"),
    ],
)
def test_a_code_is_a_string_or_nothing(
    status: int, code: Any, message: str, told: str | None
) -> None:
    error = refused("it", status, body({"error": {"message": message, "code": code}}))
    assert error.body()["error"]["code"] == told


def test_fields_that_we_do_not_know_stay() -> None:
    said = {"error": {"message": "too long", "n_ctx": 4096, "metadata": {"a": 1}}}
    told = refused("it", 400, body(said)).body()["error"]
    assert (told["n_ctx"], told["metadata"]) == (4096, {"a": 1})


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_said_to_be_the_bridges(status: int) -> None:
    error = refused("it", status, body({"error": {"message": "Invalid API Key", "code": "x"}}))
    assert error.message == 'inference server "it" refused the bridge\'s key: Invalid API Key'
    assert error.body()["error"]["code"] == "inference_server_auth"


def test_a_missing_endpoint_says_what_to_check() -> None:
    for said in (b'{"detail":"Not Found"}', b"404 page not found", b""):
        assert "check base_url" in refused("it", 404, said).message
    assert refused("it", 404, body({"error": {"message": "no model"}})).message == "no model"


@given(said=st.binary(max_size=60) | st.text(max_size=20).map(str.encode))
def test_any_body_becomes_an_error_object(said: bytes) -> None:
    told = refused("it", 500, said).body()["error"]
    assert told["message"]
    assert told["code"] is None or isinstance(told["code"], str)


@given(
    said=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(["error", "message", "code", "type", "param", "detail"]), inner
            )
        ),
        max_leaves=6,
    )
)
def test_any_json_becomes_an_error_object(said: Any) -> None:
    told = error_object(said, 500)
    assert isinstance(told["message"], str)
    assert isinstance(told["type"], str)
    assert told["param"] is None or isinstance(told["param"], str)
    assert told["code"] is None or isinstance(told["code"], str)


# With status 200


@pytest.mark.parametrize(
    ("chunk", "status"),
    [
        ({"error": {"message": "no", "code": 503}}, 503),
        ({"error": {"message": "no", "code": 200}}, 502),
        ({"error": {"message": "no", "code": "server_error"}}, 502),
        ({"error": "no"}, 502),
        ({"object": "error", "message": "no", "code": 400}, 400),
        ({"type": "error", "message": "no"}, 502),
    ],
)
def test_an_error_inside_an_answer_has_the_status_that_it_names(chunk: Any, status: int) -> None:
    error = in_band("it", chunk)
    assert error is not None
    assert (error.status, error.message) == (status, "no")


@pytest.mark.parametrize(
    "chunk", [{}, {"error": None}, {"error": {}}, {"object": "chat.completion"}]
)
def test_other_chunks_are_no_errors(chunk: Any) -> None:
    assert in_band("it", chunk) is None


def test_an_answer_that_cannot_be_used_names_its_server() -> None:
    error = broken("it", "broke off", code="x")
    assert (error.status, error.message, error.code) == (
        502,
        'inference server "it" broke off',
        "x",
    )


# Headers and pages


def test_headers_that_clients_read_are_relayed_and_no_others() -> None:
    given = {
        "retry-after": "5",
        "x-request-id": "r",
        "x-ratelimit-remaining-requests": "1",
        "ratelimit-reset": "9",
        "set-cookie": "secret",
        "server": "nginx",
        "content-length": "3",
    }
    assert relayed(given) == {
        "retry-after": "5",
        "x-request-id": "r",
        "x-ratelimit-remaining-requests": "1",
        "ratelimit-reset": "9",
    }


def test_a_page_is_read_without_its_markup() -> None:
    page = b"<html><head><title>T</title><style>x{}</style></head><body><h1>Bad</h1>\n<p>Gateway"
    assert excerpt(page) == "Bad Gateway"
    assert excerpt(b"<script>steal()</script>plain") == "plain"
    assert excerpt(b"\xff\xfe") == "\ufffd\ufffd"
    assert len(excerpt(b"word " * 10_000)) <= 201
