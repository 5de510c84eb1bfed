"""Reading a request's body and checking what the bridge decides on."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from mcp_bridge.api.body import check_chat, check_flag, check_model, parse_object, read_body
from mcp_bridge.errors import RequestError
from mcp_bridge.types import Json

HI: list[Json] = [{"role": "user", "content": "hi"}]


def sending(*pieces: bytes, leaves: bool = False) -> Receive:
    """An ASGI `receive` that gives these pieces, and then the end or a disconnect."""
    messages: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    end = {"type": "http.disconnect"} if leaves else {"type": "http.request"}
    rest = iter([*messages, end])

    async def receive() -> Message:
        return next(rest)

    return receive


def chat(**fields: Any) -> Json:
    return {"model": "m", "messages": HI, **fields}


def refused(body: Json) -> RequestError:
    with pytest.raises(RequestError) as caught:
        check_chat(body)
    assert caught.value.status == 400
    return caught.value


# Reading


async def test_a_body_is_put_together_from_its_pieces() -> None:
    assert await read_body(sending(b"ab", b"", b"cd"), 4) == b"abcd"


async def test_a_body_over_the_limit_is_413_and_read_no_further() -> None:
    receive = sending(b"abc", b"de", b"never read")
    with pytest.raises(RequestError, match="larger than 4 bytes") as caught:
        await read_body(receive, 4)
    assert caught.value.status == 413
    assert (await receive())["body"] == b"never read"


async def test_a_client_that_leaves_while_it_sends_is_no_error_of_its_body() -> None:
    with pytest.raises(ClientDisconnect):
        await read_body(sending(b"{", leaves=True), 100)


# Parsing


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (b"hello", "is not JSON"),
        (b'{"a": 1', "is not JSON"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": "\xfc"}', "is not JSON: .*0xfc"),
        (b'{"a": "two\nlines"}', "is not JSON"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
    ],
)
def test_a_body_that_is_no_json_object_is_400_with_the_reason(raw: bytes, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        parse_object(raw)
    assert caught.value.status == 400
    assert caught.value.code == "invalid_json"


def test_numbers_keep_every_digit() -> None:
    raw = b'{"seed": 123456789012345678901234567890, "n": -18446744073709551616, "t": 0.1}'
    assert json.dumps(parse_object(raw)).encode() == raw


def test_half_characters_become_whole_ones() -> None:
    raw = rb'{"a\ud800": "\ud83d\ude00 \ude00", "b": ["\ud800"]}'
    assert parse_object(raw) == {"a\ufffd": "😀 \ufffd", "b": ["\ufffd"]}


def test_of_a_field_that_is_there_twice_the_last_one_counts() -> None:
    assert parse_object(b'{"model": "a", "model": "b"}') == {"model": "b"}


# Checking


def test_a_request_with_everything_a_client_may_send_is_fine() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    check_chat(
        chat(
            messages=[
                {"role": "system", "content": None},
                {"role": "developer", "content": []},
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                {"role": "assistant", "tool_calls": [call]},
                {"role": "assistant", "content": "", "tool_calls": []},
                {"role": "assistant", "tool_calls": None, "refusal": None, "unknown": {}},
                {"role": "tool", "content": "x", "tool_call_id": "c1"},
                {"role": "function", "name": "f", "content": "x"},
            ],
            tools=[
                {"type": "function", "function": {"name": "f"}},
                {"function": {"name": "g"}},
                {"type": "custom", "custom": {"name": "h"}},
                {"type": "mcp", "server_label": "s"},
            ],
            stream=True,
            stream_options={"include_usage": True},
            tool_choice={"type": "function", "function": {"name": "f"}},
            n=1,
            top_k=5,
        )
    )
    check_chat(chat(tools=None, stream=None, stream_options=None, tool_choice=None, n=None))


CALL = {"role": "assistant", "tool_calls": [{"id": "c"}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": ["m"]}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [None]}, "messages[0]"),
        ({"messages": [*HI, "hi"]}, "messages[1]"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "wizard"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"]}]}, "messages[0].role"),
        ({"messages": [{"role": {}}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {"type": "text"}}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "tool_call_id": ["c"]}]}, "messages[0].tool_call_id"),
        ({"messages": [{**CALL, "tool_calls": {}}]}, "messages[0].tool_calls"),
        ({"messages": [{**CALL, "tool_calls": "c"}]}, "messages[0].tool_calls"),
        ({"messages": [{**CALL, "tool_calls": ["c"]}]}, "messages[0].tool_calls[0]"),
        ({"messages": [{**CALL, "tool_calls": [{"id": {}}]}]}, "messages[0].tool_calls[0].id"),
        ({"tools": {}}, "tools"),
        ({"tools": "all"}, "tools"),
        ({"tools": [None]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": 5}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": ""}}]}, "tools[0].function.name"),
        ({"stream": "true"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"tool_choice": ["auto"]}, "tool_choice"),
        ({"tool_choice": True}, "tool_choice"),
        ({"n": "1"}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": True}, "n"),
    ],
)
def test_a_wrong_field_is_named(fields: Json, param: str) -> None:
    error = refused(chat(**fields))
    assert error.param == param
    assert error.type == "invalid_request_error"
    assert param.split(".")[-1].split("[")[0] in error.message


def test_a_field_that_is_missing_is_named_too() -> None:
    assert refused({"messages": HI}).param == "model"
    assert refused({"model": "m"}).param == "messages"


def test_single_fields_are_checked_for_other_endpoints() -> None:
    check_model({"model": "m"})
    check_flag({}, "stream")
    with pytest.raises(RequestError, match="stream must be true or false"):
        check_flag({"stream": "no"}, "stream")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def dictionaries(fields: Sequence[str], values: st.SearchStrategy[Any]) -> Any:
    return st.dictionaries(st.sampled_from(fields), values | JSON, max_size=4)


CALLS = st.lists(dictionaries(["id", "type", "function"], JSON), max_size=2)
MESSAGES = st.lists(
    dictionaries(
        ["role", "content", "tool_calls", "tool_call_id"],
        st.sampled_from(["user", "assistant", "tool"]) | CALLS,
    ),
    max_size=3,
)
TOOLS = st.lists(dictionaries(["type", "function"], dictionaries(["name"], JSON)), max_size=3)


@given(
    dictionaries(
        ["model", "messages", "tools", "stream", "stream_options", "tool_choice", "n", "mcp"],
        MESSAGES | TOOLS,
    )
)
def test_any_object_is_fine_or_refused_with_the_field_that_is_wrong(body: Json) -> None:
    try:
        check_chat(body)
    except RequestError as exc:
        assert exc.param
