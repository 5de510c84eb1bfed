"""Questions to one inference server, and every way in which it can fail."""

import gc
import gzip
import inspect
import json
import traceback
import weakref
from contextlib import aclosing
from typing import Any

import anyio
import httpx2
import pytest

from mcp_bridge.config.settings import InferenceServer
from mcp_bridge.errors import InferenceError
from mcp_bridge.inference.answer import Answer, Opened, Part
from mcp_bridge.inference.client import Inference
from mcp_bridge.inference.transport import Endpoint
from tests.fakes import (
    DONE,
    Reply,
    ScriptedInference,
    answer,
    chunk,
    closed_port,
    completion_of,
    event,
    hang,
    page,
    refuse,
    sse,
    stream_of,
    whole,
    with_headers,
)
from tests.inference.asking import answer_to, at, error_of, inference, items, question, shown

either = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])

KEY = "sk-very-secret-0123456789"
CALL = ("c1", "add", '{"a": 1}')
HI = answer("hello there")
MIDDLE = [chunk({"role": "assistant", "content": ""}), chunk({"content": "half an answer"})]
END = chunk({}, finish_reason="stop")


# What comes back


@either
async def test_a_question_is_opened_once_and_answered_once(stream: bool) -> None:
    async with (
        ScriptedInference(answer("hello", calls=[CALL])) as server,
        inference(at(server)) as asked,
    ):
        found = await items(asked, question(stream=stream))
    assert isinstance(found[0], Opened)
    last = found[-1]
    assert isinstance(last, Answer)
    assert last.message == {"role": "assistant", "content": "hello"}
    assert [(call.id, call.name, call.arguments) for call in last.calls] == [CALL]
    assert all(isinstance(item, Part) for item in found[1:-1])
    assert bool(found[1:-1]) is stream, "parts are for those who stream"


async def test_a_stream_shows_its_text_as_it_comes() -> None:
    gate = anyio.Event()
    script = sse(*MIDDLE, gate, chunk({"content": ", and the rest"}), END, DONE)
    async with ScriptedInference(script) as server, inference(at(server)) as asked:
        with anyio.fail_after(5):
            async with aclosing(await asked.chat(question(stream=True))) as found:
                seen = [await anext(found), await anext(found)]
                gate.set()
                seen += [item async for item in found]
    assert shown(seen[:2]) == "half an answer"
    assert shown(seen) == "half an answer, and the rest"


@pytest.mark.parametrize(
    "said", [answer("text only"), answer("text", calls=[CALL]), answer(calls=[CALL])]
)
async def test_a_whole_document_answers_a_streamed_question_too(said: Any) -> None:
    script = whole(completion_of(said))
    async with ScriptedInference(script, said) as server, inference(at(server)) as asked:
        found = await items(asked, question(stream=True))
        streamed = await answer_to(asked, question(stream=True))
    assert isinstance(found[-1], Answer)
    assert (found[-1].message, found[-1].calls) == (streamed.message, streamed.calls)
    assert shown(found) == said.text
    fragments = [f for item in found if isinstance(item, Part) for f in item.fragments]
    assert [(f.id, f.name, f.arguments) for f in fragments] == list(said.calls)


async def test_several_choices_of_a_whole_document_are_streamed_too() -> None:
    body = completion_of(answer("first"))
    body["choices"].append(
        {
            "index": 1,
            "message": {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function"}]},
            "finish_reason": "tool_calls",
        }
    )
    async with ScriptedInference(whole(body)) as server, inference(at(server)) as asked:
        found = await items(asked, question(stream=True, n=2))
    chunks = [chunk for item in found if isinstance(item, Part) for chunk in item.read()]
    second = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == 1]
    assert second[0]["delta"]["tool_calls"] == [{"index": 0, "id": "c1", "type": "function"}]
    assert second[0]["finish_reason"] == "tool_calls"


async def test_events_answer_a_whole_question_too() -> None:
    script = sse(*stream_of(answer("hello", calls=[CALL])), DONE)
    async with ScriptedInference(script) as server, inference(at(server)) as asked:
        found = await items(asked, question())
    assert [type(item) for item in found] == [Opened, Answer]
    assert isinstance(found[-1], Answer)
    assert found[-1].message["content"] == "hello"


@either
@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", ""])
async def test_the_content_type_does_not_matter(stream: bool, kind: str) -> None:
    body = b"".join(map(event, stream_of(HI))) if stream else json.dumps(completion_of(HI)).encode()
    script = Reply(headers={"content-type": kind} if kind else {}, pieces=[body])
    async with ScriptedInference(script) as server, inference(at(server)) as asked:
        assert (await answer_to(asked, question(stream=stream))).message["content"] == "hello there"


async def test_white_space_before_a_whole_answer_is_patience() -> None:
    body = json.dumps(completion_of(HI)).encode()
    script = Reply(pieces=[b"\xef\xbb\xbf", b" \n", b"\n\n ", body])
    async with ScriptedInference(script) as server, inference(at(server)) as asked:
        assert (await answer_to(asked, question())).message["content"] == "hello there"


@either
async def test_headers_to_relay_come_with_the_opening(stream: bool) -> None:
    headers = {"X-RateLimit-Remaining-Requests": "7", "x-request-id": "r1", "server": "engine"}
    script = sse(*stream_of(HI), DONE, headers=headers)
    async with ScriptedInference(script) as server, inference(at(server)) as asked:
        found = await items(asked, question(stream=stream))
    assert found[0] == Opened({"x-ratelimit-remaining-requests": "7", "x-request-id": "r1"})


# What is sent


async def test_the_body_arrives_as_it_was_given() -> None:
    body = question(
        stream=True,
        top_k=40,
        chat_template_kwargs={"enable_thinking": False},
        seed=2**70,
        tiny=5e-324,
        text="naïve \u2028 🙂",
        nothing=None,
    )
    async with ScriptedInference(HI) as server, inference(at(server)) as asked:
        await items(asked, body)
    assert server.requests[0].json == body
    assert server.requests[0].headers["content-type"] == "application/json"
    assert server.requests[0].headers["accept-encoding"] == "identity", "events must not be held"


@pytest.mark.parametrize("key", [None, "", "None", "none", " null "])
async def test_no_key_means_no_authorization(
    key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, KEY)
    async with ScriptedInference(HI) as server, inference(at(server, api_key=key)) as asked:
        await items(asked, question())
        await asked.models()
    for request in (*server.requests, *server.others):
        assert "authorization" not in request.headers
        assert KEY not in request.headers.values()


async def test_the_key_is_a_bearer_token_whatever_surrounds_it() -> None:
    async with ScriptedInference(HI) as server, inference(at(server, api_key=f"{KEY}\n")) as asked:
        await items(asked, question())
        await asked.models()
    sent = [request.headers["authorization"] for request in (*server.requests, *server.others)]
    assert sent == [f"Bearer {KEY}"] * 2


async def test_headers_of_the_settings_win_and_the_callers_credentials_stay_here() -> None:
    settings = {"api_key": KEY, "headers": {"X-Team": "ours", "Authorization": "Basic abc"}}
    relayed = {
        "x-team": "theirs",
        "traceparent": "00-1",
        "Authorization": "Bearer of-the-bridge",
        "cookie": "session=1",
        "x-api-key": "of-the-bridge",
    }
    async with ScriptedInference(HI) as server, inference(at(server, **settings)) as asked:
        await items(asked, question(), relayed)
    sent = server.requests[0].headers
    assert sent["x-team"] == "ours"
    assert sent["authorization"] == "Basic abc"
    assert sent["traceparent"] == "00-1"
    assert not {"cookie", "x-api-key"} & sent.keys()


async def test_the_server_learns_who_asks() -> None:
    async with ScriptedInference(then=HI) as server, inference(at(server)) as asked:
        await items(asked, question())
        await asked.models()
    for request in (*server.requests, *server.others):
        assert request.headers["user-agent"] == "mcp-bridge"


async def test_a_relayed_header_may_hold_any_character() -> None:
    async with ScriptedInference(HI) as server, inference(at(server)) as asked:
        await items(asked, question(), {"x-openwebui-user-name": "Jörg Ω"})
    assert server.requests[0].headers["x-openwebui-user-name"] == "J%C3%B6rg %CE%A9"


async def test_a_password_in_the_url_logs_in() -> None:
    async with ScriptedInference(HI) as server:
        url = server.base_url.replace("//", "//user:pass@")
        async with inference(at(server, base_url=url)) as asked:
            await items(asked, question())
    assert server.requests[0].headers["authorization"] == "Basic dXNlcjpwYXNz"


@pytest.mark.parametrize(
    ("given", "asked_at"),
    [
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("//v1//", "/v1/chat/completions"),
        ("", "/chat/completions"),
        ("/", "/chat/completions"),
        ("/api/v1/chat/completions", "/api/v1/chat/completions"),
        ("/v1?key=1", "/v1/chat/completions?key=1"),
        (" /v1 ", "/v1/chat/completions"),
    ],
)
async def test_the_base_url_is_understood_however_it_is_written(given: str, asked_at: str) -> None:
    async with ScriptedInference(HI) as server:
        root = f"http://127.0.0.1:{server.port}"
        url = f" {root}{given.strip()} " if " " in given else root + given
        async with inference(at(server, base_url=url)) as asked:
            await items(asked, question())
    assert server.requests[0].path == asked_at


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("", "/openai/deployments/gpt-4o/chat/completions"),
        ("/openai/", "/openai/deployments/gpt-4o/chat/completions"),
        ("/openai/deployments/mine", "/openai/deployments/mine/chat/completions"),
        ("/openai/v1", "/openai/v1/chat/completions"),
    ],
)
async def test_azure_is_asked_in_its_way(
    base: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "of-the-environment")
    async with ScriptedInference(HI) as server:
        azure = {"base_url": f"http://127.0.0.1:{server.port}{base}", "api_version": "2025-01-01"}
        async with inference(at(server, api_key=KEY, **azure)) as asked:
            await items(asked, question(model="gpt-4o"))
    request = server.requests[0]
    assert request.path == f"{path}?api-version=2025-01-01"
    assert request.headers["api-key"] == KEY
    assert "authorization" not in request.headers
    assert request.json["model"] == "gpt-4o"


async def test_azure_can_be_entered_with_a_token_in_the_headers() -> None:
    async with ScriptedInference(HI) as server:
        azure = {"api_version": "1", "headers": {"Authorization": "Bearer ad-token"}}
        async with inference(at(server, **azure)) as asked:
            await items(asked, question())
    assert server.requests[0].headers["authorization"] == "Bearer ad-token"
    assert "api-key" not in server.requests[0].headers


# Streams as engines send them


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"".join(map(event, stream_of(HI)))], id="no [DONE]"),
        pytest.param(
            [b"".join(map(event, stream_of(HI))).replace(b"\n", b"\r\n"), b"data: [DONE]\r\n\r\n"],
            id="CRLF",
        ),
        pytest.param(
            [b"".join(map(event, stream_of(HI))).replace(b"data: ", b"data:"), b"data:[DONE]\n\n"],
            id="no space",
        ),
        pytest.param(
            [b": PROCESSING\n\n", b"data: ping\n\n", b"data: null\n\n", *map(event, stream_of(HI))],
            id="comments and pings",
        ),
        pytest.param([*map(event, stream_of(HI)), b'data: {"usage'], id="cut after the end"),
        pytest.param([b"\xef\xbb\xbf", *map(event, stream_of(HI)), DONE], id="byte order mark"),
    ],
)
async def test_a_stream_is_read_as_engines_write_it(pieces: list[bytes]) -> None:
    async with ScriptedInference(sse(*pieces)) as server, inference(at(server)) as asked:
        found = await items(asked, question(stream=True))
    assert shown(found) == "hello there"
    assert isinstance(found[-1], Answer)
    assert found[-1].finish_reason == "stop"


async def test_a_stream_may_be_cut_anywhere_even_inside_a_character() -> None:
    text = "naïve 🙂 größer"
    body = b"".join(map(event, stream_of(answer(text)))) + DONE
    single = [body[at : at + 1] for at in range(len(body))]
    async with ScriptedInference(sse(*single)) as server, inference(at(server)) as asked:
        found = await items(asked, question(stream=True))
    assert shown(found) == text


async def test_a_chunk_of_five_megabytes_arrives() -> None:
    text = "x" * 5_000_000
    script = sse(chunk({"content": text}), END, DONE)
    async with ScriptedInference(script) as server, inference(at(server)) as asked:
        assert (await answer_to(asked, question(stream=True))).message["content"] == text


async def test_a_compressed_answer_is_read() -> None:
    body = gzip.compress(json.dumps(completion_of(HI)).encode())
    script = Reply(headers={"content-encoding": "gzip"}, pieces=[body])
    async with ScriptedInference(script) as server, inference(at(server)) as asked:
        assert (await answer_to(asked, question())).message["content"] == "hello there"


# Out of reach


@either
async def test_a_refused_connection_is_a_502_that_reached_nobody(stream: bool) -> None:
    with closed_port() as port:
        settings = InferenceServer(name="gpu", base_url=f"http://127.0.0.1:{port}/v1")
        async with inference(settings) as asked:
            error = await error_of(asked, question(stream=stream))
    assert (error.status, error.unsent) == (502, True)
    place = f"http://127.0.0.1:{port}/v1"
    assert error.message == (
        f'inference server "gpu" cannot be reached at {place}: connection refused'
    )


async def test_a_server_without_a_name_is_called_by_its_host() -> None:
    with closed_port() as port:
        async with inference(
            InferenceServer(base_url=f"http://user:pass@127.0.0.1:{port}/v1")
        ) as asked:
            error = await error_of(asked, question())
    assert f'"127.0.0.1:{port}"' in error.message
    assert "pass" not in error.message


@either
async def test_a_connection_that_closes_without_an_answer_is_tried_again(stream: bool) -> None:
    async with ScriptedInference(refuse(), refuse(), HI) as server, inference(at(server)) as asked:
        assert (await answer_to(asked, question(stream=stream))).message["content"] == "hello there"
    assert len(server.requests) == 3


@either
async def test_it_is_tried_as_often_as_the_settings_say(stream: bool) -> None:
    async with (
        ScriptedInference(then=refuse()) as server,
        inference(at(server, name="gpu", max_retries=1)) as asked,
    ):
        error = await error_of(asked, question(stream=stream))
    assert len(server.requests) == 2
    assert (error.status, error.message) == (
        502,
        'inference server "gpu" closed the connection without an answer',
    )


@either
@pytest.mark.parametrize("silence", ["no answer", "headers alone"])
async def test_a_server_that_hangs_is_given_up_and_not_asked_again(
    stream: bool, silence: str
) -> None:
    script = hang() if silence == "no answer" else sse(end="hang")
    async with (
        ScriptedInference(script) as server,
        inference(at(server, first_byte_timeout=0.1)) as asked,
    ):
        with anyio.fail_after(5):
            error = await error_of(asked, question(stream=stream))
            await server.requests[0].gone.wait()
    assert (error.status, error.code) == (504, "inference_server_timeout")
    assert "first_byte_timeout" in error.message
    assert len(server.requests) == 1


async def test_a_url_that_is_none_is_called_so() -> None:
    for url in ("localhost:11434/v1", "ftp://example.test/v1", "http://[bad/v1"):
        async with inference(InferenceServer(base_url=url)) as asked:
            error = await error_of(asked, question())
        assert "base_url is no http:// or https:// URL" in error.message


@pytest.mark.parametrize("servers", [(), (InferenceServer(),), (InferenceServer(base_url=" "),)])
async def test_without_a_server_every_question_says_what_to_set(
    servers: tuple[InferenceServer, ...],
) -> None:
    async with inference(*servers) as asked:
        for attempt in (items(asked, question()), asked.models(), asked.check_model("model-a")):
            with pytest.raises(InferenceError, match=r"set inference_server\.base_url") as caught:
                await attempt
            assert caught.value.status == 503
        assert asked.profile("model-a") == "openai"
        assert not asked.sees_images("model-a")
        assert await asked.check() == []


# Refusals


@either
@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_refusal_keeps_its_status_and_its_words(stream: bool, status: int) -> None:
    error = {"message": "no good", "type": "invalid_request_error", "param": "tools", "code": "x"}
    async with (
        ScriptedInference(whole({"error": error}, status=status)) as server,
        inference(at(server)) as asked,
    ):
        caught = await error_of(asked, question(stream=stream))
    assert (caught.status, caught.body()) == (status, {"error": error})
    assert len(server.requests) == 1


@either
async def test_a_refused_key_is_said_to_be_ours_and_never_shown(stream: bool) -> None:
    said = whole({"error": {"message": f"Incorrect API key provided: {KEY}"}}, status=401)
    async with (
        ScriptedInference(said) as server,
        inference(at(server, name="cloud", api_key=KEY)) as asked,
    ):
        error = await error_of(asked, question(stream=stream))
    assert error.status == 401
    assert error.message.startswith('inference server "cloud" refused the bridge\'s key')
    assert KEY not in json.dumps(error.body())
    assert KEY not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("key", [f"{KEY}\nx: y", f"{KEY}ü"])
async def test_a_key_that_no_header_can_hold_is_not_shown(key: str) -> None:
    async with ScriptedInference() as server, inference(at(server, api_key=key)) as asked:
        error = await error_of(asked, question())
    assert error.code == "inference_server_misconfigured"
    assert KEY not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("name", ["", "x y", "x:y", "x\r\ny", "größe"])
async def test_a_header_that_cannot_be_named_so_is_not_sent(name: str) -> None:
    async with ScriptedInference() as server, inference(at(server, headers={name: KEY})) as asked:
        error = await error_of(asked, question())
    assert error.code == "inference_server_misconfigured"
    assert "headers" in error.message
    assert not server.requests


async def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    with closed_port() as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        server = InferenceServer(base_url="http://model.test/v1", max_retries=0)
        async with inference(server) as asked:
            error = await error_of(asked, question())
    assert error.unsent
    assert error.message.endswith(
        "cannot be reached at http://model.test/v1: the proxy before it: connection refused"
    )


@either
async def test_an_html_page_is_an_error_with_its_text(stream: bool) -> None:
    script = [page(status=502), page("<html><p>Welcome!</p></html>", status=200)]
    async with (
        ScriptedInference(*script) as server,
        inference(at(server, max_retries=0)) as asked,
    ):
        gateway = await error_of(asked, question(stream=stream))
        welcome = await error_of(asked, question(stream=stream))
    assert (gateway.status, gateway.message) == (502, "Bad gateway")
    assert (welcome.status, "Welcome!" in welcome.message) == (502, True)


@either
@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_what_passes_is_tried_again(stream: bool, status: int) -> None:
    busy = whole({"error": {"message": "busy"}}, status=status, headers={"retry-after": "0"})
    async with ScriptedInference(busy, busy, HI) as server, inference(at(server)) as asked:
        assert (await answer_to(asked, question(stream=stream))).message["content"] == "hello there"
    assert len(server.requests) == 3
    assert len({request.body for request in server.requests}) == 1


@either
async def test_a_long_wait_is_the_callers_to_decide(stream: bool) -> None:
    busy = whole({"error": {"message": "busy"}}, status=429, headers={"retry-after": "3600"})
    async with ScriptedInference(busy) as server, inference(at(server)) as asked:
        error = await error_of(asked, question(stream=stream))
    assert (error.status, error.headers["retry-after"]) == (429, "3600")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "final",
    [
        with_headers(whole({"error": {"message": "no"}}, status=500), x_should_retry="false"),
        whole({"error": {"message": "pay", "code": "insufficient_quota"}}, status=429),
        whole({"error": {"message": "not implemented"}}, status=501),
    ],
)
async def test_what_will_not_pass_is_not_tried_again(final: Reply) -> None:
    async with ScriptedInference(final) as server, inference(at(server)) as asked:
        await error_of(asked, question())
    assert len(server.requests) == 1


async def test_a_redirect_is_not_followed_with_our_key() -> None:
    async with ScriptedInference() as elsewhere:
        moved = Reply(308, {"location": f"{elsewhere.base_url}/chat/completions?token={KEY}"})
        async with (
            ScriptedInference(moved) as server,
            inference(at(server, api_key=KEY)) as asked,
        ):
            error = await error_of(asked, question())
    assert f"127.0.0.1:{elsewhere.port}" in error.message
    assert "base_url" in error.message
    assert KEY not in error.message
    assert not elsewhere.requests
    assert len(server.requests) == 1


async def test_cookies_are_not_kept() -> None:
    script = sse(*stream_of(HI), DONE, headers={"set-cookie": "session=1; Path=/"})
    async with ScriptedInference(script, HI) as server, inference(at(server)) as asked:
        await items(asked, question())
        await items(asked, question())
    assert "cookie" not in server.requests[1].headers


# Half an answer


@either
@pytest.mark.parametrize("script", [sse(), sse(b": ping\n\n"), sse(DONE), Reply()])
async def test_an_empty_answer_is_an_error(stream: bool, script: Reply) -> None:
    async with ScriptedInference(script) as server, inference(at(server)) as asked:
        error = await error_of(asked, question(stream=stream))
    assert (error.status, error.code) == (502, "inference_server_empty_answer")


async def test_a_stream_cut_before_its_first_byte_is_tried_again() -> None:
    async with ScriptedInference(sse(end="cut"), HI) as server, inference(at(server)) as asked:
        found = await items(asked, question(stream=True))
    assert shown(found) == "hello there"


async def test_a_stream_cut_in_the_middle_is_an_error_after_what_came() -> None:
    seen: list[Any] = []
    async with ScriptedInference(sse(*MIDDLE, end="cut")) as server, inference(at(server)) as asked:
        with pytest.raises(InferenceError, match="broke off in the middle") as caught:
            async with aclosing(await asked.chat(question(stream=True))) as found:
                async for item in found:
                    seen.append(item)  # noqa: PERF401  # what came must be kept
    assert caught.value.status == 502
    assert shown(seen) == "half an answer"
    assert len(server.requests) == 1


async def test_a_whole_answer_cut_in_the_middle_is_an_error() -> None:
    body = json.dumps(completion_of(HI)).encode()
    cut = Reply(headers={"content-type": "application/json"}, pieces=[body[:50]], end="cut")
    short = Reply(headers={"content-type": "application/json"}, pieces=[body[:50]])
    async with ScriptedInference(cut, short) as server, inference(at(server)) as asked:
        broke = await error_of(asked, question())
        broken = await error_of(asked, question())
    assert "broke off" in broke.message
    assert "broken JSON" in broken.message


@pytest.mark.parametrize("end", ["cut", "hang"])
async def test_a_break_after_the_finish_does_no_harm(end: Any) -> None:
    script = sse(*stream_of(answer("done", calls=[CALL])), end=end)
    async with (
        ScriptedInference(script) as server,
        inference(at(server, idle_timeout=0.1)) as asked,
    ):
        with anyio.fail_after(5):
            found = await answer_to(asked, question(stream=True))
    assert found.message["content"] == "done"
    assert found.calls[0].complete


async def test_silence_in_a_stream_ends_it() -> None:
    async with (
        ScriptedInference(sse(*MIDDLE, end="hang")) as server,
        inference(at(server, idle_timeout=0.1)) as asked,
    ):
        with anyio.fail_after(5):
            error = await error_of(asked, question(stream=True))
            await server.requests[0].gone.wait()
    assert (error.status, "idle_timeout" in error.message) == (504, True)


async def test_a_comment_is_a_first_byte() -> None:
    async with (
        ScriptedInference(sse(b": prompt processing\n\n", end="hang")) as server,
        inference(at(server, idle_timeout=0.1)) as asked,
    ):
        with anyio.fail_after(5):
            error = await error_of(asked, question(stream=True))
    assert "idle_timeout" in error.message


@either
@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"error": {"message": "overloaded", "code": 503}}, 503),
        ({"error": {"message": "overloaded"}}, 502),
        ({"object": "error", "message": "overloaded", "code": 400}, 400),
        ({"type": "error", "message": "overloaded"}, 502),
        ([{"error": {"message": "overloaded", "code": 429}}], 429),
    ],
)
async def test_an_error_with_status_200_is_one_before_anything_is_opened(
    stream: bool, said: Any, status: int
) -> None:
    raw = b"data: " + json.dumps(said).encode() + b"\n\n" if stream else json.dumps(said).encode()
    async with ScriptedInference(Reply(pieces=[raw])) as server, inference(at(server)) as asked:
        seen: list[Any] = []
        with pytest.raises(InferenceError) as caught:
            async with aclosing(await asked.chat(question(stream=stream))) as found:
                async for item in found:
                    seen.append(item)  # noqa: PERF401  # what came must be kept
    assert (caught.value.status, caught.value.message, seen) == (status, "overloaded", [])


async def test_an_error_inside_a_stream_ends_it() -> None:
    broke = {"error": {"message": "does not match the format", "code": 500}}
    async with ScriptedInference(sse(*MIDDLE, broke)) as server, inference(at(server)) as asked:
        error = await error_of(asked, question(stream=True))
    assert error.message == "does not match the format"
    assert len(server.requests) == 1


async def test_a_chunk_that_is_no_json_is_an_error() -> None:
    script = sse(*MIDDLE, b'data: {"choices": [\n\n', DONE)
    async with ScriptedInference(script) as server, inference(at(server)) as asked:
        error = await error_of(asked, question(stream=True))
    assert "not JSON" in error.message


@pytest.mark.parametrize("failure", [httpx2.HTTPError, httpx2.StreamError])
def test_every_failure_of_the_http_library_has_a_meaning(failure: type[Exception]) -> None:
    endpoint = Endpoint(InferenceServer(name="gpu", base_url="http://gpu.test/v1"))
    kinds = [kind for kind in _subclasses(failure) if kind is not httpx2.HTTPStatusError]
    assert len(kinds) > 3
    for kind in kinds:
        for begun in (True, False):
            error = endpoint.failure(_made(kind), begun=begun)
            assert error.message.startswith('inference server "gpu" ')
            assert error.status >= 500


def _subclasses(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(deeper for sub in kind.__subclasses__() for deeper in _subclasses(sub))]


def _made(kind: type[Exception]) -> Exception:
    takes_text = len(inspect.signature(kind.__init__).parameters) > 1
    return kind("why") if takes_text else kind()


# Leaving


@pytest.mark.parametrize("when", ["at the opening", "after a part"])
async def test_closing_the_generator_closes_the_connection(when: str) -> None:
    async with (
        ScriptedInference(sse(*MIDDLE, end="hang"), HI) as server,
        inference(at(server, max_connections=1)) as asked,
    ):
        found = await asked.chat(question(stream=True))
        await anext(found)
        if when == "after a part":
            await anext(found)
        await found.aclose()
        with anyio.fail_after(5):
            await server.requests[0].gone.wait()
            assert await answer_to(asked, question())


@either
@pytest.mark.parametrize("script", [hang(), sse(end="hang"), sse(*MIDDLE, end="hang")])
async def test_cancellation_closes_the_connection(stream: bool, script: Reply) -> None:
    async with (
        ScriptedInference(script, HI) as server,
        inference(at(server, max_connections=1)) as asked,
    ):
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(items, asked, question(stream=stream))
                await server.wait_for_requests(1)
                tasks.cancel_scope.cancel()
            await server.requests[0].gone.wait()
            assert await answer_to(asked, question())


async def test_cancellation_ends_the_wait_before_the_next_try() -> None:
    busy = whole({"error": {"message": "busy"}}, status=429, headers={"retry-after": "20"})
    async with ScriptedInference(then=busy) as server, inference(at(server)) as asked:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(items, asked, question())
                await server.wait_for_requests(1)
                tasks.cancel_scope.cancel()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "script",
    [refuse(), Reply(end="cut"), Reply(pieces=[b"{"], end="hang")],
    ids=["refused", "cut", "silent"],
)
async def test_an_error_that_nobody_holds_is_gone(script: Reply) -> None:
    async def fails(asked: Inference) -> weakref.ref[InferenceError]:
        try:
            await items(asked, question())
        except InferenceError as exc:
            return weakref.ref(exc)
        raise AssertionError("it did not fail")

    async with (
        ScriptedInference(then=script) as server,
        inference(at(server, max_retries=0, idle_timeout=0.01)) as asked,
    ):
        gc.disable()
        try:
            assert (await fails(asked))() is None
        finally:
            gc.enable()


# Connections


@either
async def test_a_connection_is_used_again(stream: bool) -> None:
    async with ScriptedInference(then=HI) as server, inference(at(server)) as asked:
        for _ in range(5):
            await items(asked, question(stream=stream))
    assert server.connections == 1


async def test_256_streams_run_side_by_side() -> None:
    gate = anyio.Event()
    texts: list[str] = []
    script = sse(*MIDDLE, gate, END, DONE)

    async def ask(asked: Inference) -> None:
        texts.append(shown(await items(asked, question(stream=True))))

    async with ScriptedInference(then=script) as server, inference(at(server)) as asked:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for _ in range(256):
                    tasks.start_soon(ask, asked)
                await server.wait_for_requests(256)
                gate.set()
    assert texts == ["half an answer"] * 256


async def test_more_requests_than_connections_wait_for_their_turn() -> None:
    gates = [anyio.Event(), anyio.Event()]
    scripts = [sse(*MIDDLE, gate, END, DONE) for gate in gates]
    async with (
        ScriptedInference(*scripts) as server,
        inference(at(server, max_connections=1)) as asked,
    ):
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(items, asked, question(stream=True))
                tasks.start_soon(items, asked, question(stream=True))
                await server.wait_for_requests(1)
                await anyio.wait_all_tasks_blocked()
                assert len(server.requests) == 1
                gates[0].set()
                await server.wait_for_requests(2)
                gates[1].set()
    assert server.connections == 1


async def test_closing_leaves_streams_that_are_running_alone() -> None:
    gates = [anyio.Event(), anyio.Event()]
    scripts = [sse(*MIDDLE, gate, END, DONE) for gate in gates]
    async with ScriptedInference(*scripts, HI) as server:
        asked = Inference([at(server)])
        with anyio.fail_after(5):
            running = [await asked.chat(question(stream=True)) for _ in gates]
            for found in running:
                assert isinstance(await anext(found), Opened)
            await asked.aclose()
            for found, gate in zip(running, gates, strict=True):
                gate.set()
                assert isinstance([item async for item in found][-1], Answer)
            assert await answer_to(asked, question())  # the next round of the same conversation
        assert server.connections == 3, "the pool was closed with its last request"


# Calls in the text


@either
@pytest.mark.parametrize(("model", "is_parsed"), [("qwen-7b", True), ("gpt-4o", False)])
async def test_calls_in_the_text_are_taken_out_for_models_that_write_them(
    stream: bool, model: str, is_parsed: bool
) -> None:
    text = 'Sure.<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    async with (
        ScriptedInference(answer(text)) as server,
        inference(at(server, text_tool_calls=["qwen*"])) as asked,
    ):
        found = await items(asked, question(stream=stream, model=model), text_calls_for={"add"})
    last = found[-1]
    assert isinstance(last, Answer)
    assert [call.name for call in last.calls] == (["add"] if is_parsed else [])
    assert last.message["content"] == ("Sure." if is_parsed else text)
    if stream:
        assert shown(found) == last.message["content"]
        fragments = [f for item in found if isinstance(item, Part) for f in item.fragments]
        assert [f.name for f in fragments] == [call.name for call in last.calls]
