"""Requests that pass through untouched."""

import gc
import gzip
import json
import weakref
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from pydantic import SecretStr

from mcp_bridge.config.settings import InferenceServer
from mcp_bridge.errors import InferenceError, RequestError
from mcp_bridge.inference.client import Inference
from tests.fakes import Reply, ScriptedInference, closed_port, refuse, whole
from tests.http1.serving import Reader, Site, Writer, says, serving
from tests.inference.asking import at, inference, pieces_of

KEY = "sk-very-secret-0123456789"
JSON = [("content-type", "application/json")]


async def echo(asked: Inference, method: str, path: str, **options: Any) -> Any:
    """What the scripted server says it was sent."""
    async with asked.forward(method, path, **options) as found:
        assert found.status == 200
        return json.loads(b"".join([piece async for piece in found]))


async def test_method_path_query_and_body_arrive_as_they_are() -> None:
    body = b'{"input": "na\\u00efve", "n":  1}'
    async with ScriptedInference() as server, inference(at(server)) as asked:
        await echo(asked, "POST", "embeddings", query="a=1&b=%2F&a=2", headers=JSON, body=body)
        await echo(asked, "DELETE", "files/file-1")
    first, second = server.others
    assert (first.method, first.path, first.body) == ("POST", "/v1/embeddings?a=1&b=%2F&a=2", body)
    assert first.headers["content-type"] == "application/json"
    assert (second.method, second.path, second.body) == ("DELETE", "/v1/files/file-1", b"")


@pytest.mark.parametrize(
    ("path", "arrives"),
    [
        ("files/a b?c#d", "/v1/files/a%20b%3Fc%23d"),
        ("/files//x", "/v1/files//x"),
        ("files/größe", "/v1/files/gr%C3%B6%C3%9Fe"),
        ("models/org/name:tag@1", "/v1/models/org/name:tag@1"),
        ("files/100%", "/v1/files/100%25"),
    ],
)
async def test_a_path_is_quoted_as_it_was(path: str, arrives: str) -> None:
    async with ScriptedInference() as server, inference(at(server)) as asked:
        await echo(asked, "GET", path)
    assert server.others[0].path == arrives


@pytest.mark.parametrize("path", ["../admin", "files/../../admin", "./x", "files/.."])
async def test_a_path_never_leads_out_of_the_base_url(path: str) -> None:
    async with ScriptedInference() as server, inference(at(server)) as asked:
        with pytest.raises(RequestError) as caught:
            await echo(asked, "GET", path)
    assert caught.value.status == 400
    assert not server.others


async def test_credentials_are_exchanged_and_the_bridge_keeps_its_own() -> None:
    theirs = {
        "Authorization": "Bearer of-the-bridge",
        "X-API-Key": "of-the-bridge",
        "api-key": "of-the-bridge",
        "Cookie": "session=1",
        "Host": "bridge.test",
        "X-MCP-Toolset": "files",
        "X-Forwarded-For": "10.0.0.1",
        "OpenAI-Organization": "theirs",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "1",
        "X-Custom": "kept",
        "User-Agent": "theirs/1",
        "x-team": "theirs",
    }
    settings = {"api_key": KEY, "headers": {"X-Team": "ours"}}
    async with ScriptedInference() as server, inference(at(server, **settings)) as asked:
        await echo(asked, "GET", "files", headers=theirs)
    sent = server.others[0].headers
    assert sent["authorization"] == f"Bearer {KEY}"
    assert sent["x-team"] == "ours"
    assert (sent["x-custom"], sent["user-agent"]) == ("kept", "theirs/1")
    assert "of-the-bridge" not in str(sent)
    assert sent["host"] == f"127.0.0.1:{server.port}"
    gone = {"cookie", "x-mcp-toolset", "x-forwarded-for", "openai-organization", "x-hop"}
    assert not gone & sent.keys()


async def test_a_body_is_passed_on_piece_by_piece() -> None:
    pieces = [b"--b\r\n", bytes(range(256)), b"\r\n--b--"]
    headers = [
        ("content-type", "multipart/form-data; boundary=b"),
        ("transfer-encoding", "chunked"),
    ]
    async with ScriptedInference() as server, inference(at(server)) as asked:
        await echo(asked, "POST", "files", headers=headers, body=pieces_of(*pieces))
    request = server.others[0]
    assert request.body == b"".join(pieces)
    assert request.headers["content-type"] == "multipart/form-data; boundary=b"
    assert request.headers["transfer-encoding"] == "chunked"


async def test_a_body_of_known_length_keeps_it() -> None:
    async with ScriptedInference() as server, inference(at(server)) as asked:
        headers = [("content-length", "4")]
        await echo(asked, "PUT", "files", headers=headers, body=pieces_of(b"ab", b"cd"))
    assert server.others[0].body == b"abcd"
    assert server.others[0].headers["content-length"] == "4"
    assert "transfer-encoding" not in server.others[0].headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
async def test_a_request_without_a_body_gets_none(method: str) -> None:
    taken: list[str] = []

    async def nothing() -> AsyncIterator[bytes]:
        taken.append("to the end")
        async for piece in pieces_of():
            yield piece

    async with ScriptedInference() as server, inference(at(server)) as asked:
        server.routes[method, "/v1/files"] = Reply(status=204)
        async with asked.forward(method, "files", body=nothing()):
            pass
    assert "transfer-encoding" not in server.others[0].headers
    assert server.others[0].headers.get("content-length", "0") == "0"
    assert server.others[0].body == b""
    assert taken, "the door watches for the client behind the body's end"


async def test_an_upload_that_breaks_off_is_broken_off() -> None:
    class ClientLeft(Exception):
        pass

    async def leaving() -> AsyncIterator[bytes]:
        yield b"half"
        raise ClientLeft

    headers = [("content-length", "8")]
    async with (
        ScriptedInference() as server,
        inference(at(server, max_connections=1)) as asked,
    ):
        with pytest.raises(ClientLeft):
            await echo(asked, "POST", "files", headers=headers, body=leaving())
        assert not server.others
        await echo(asked, "GET", "files")


async def test_an_answer_is_passed_on_piece_by_piece() -> None:
    gate = anyio.Event()
    async with ScriptedInference() as server, inference(at(server)) as asked:
        server.routes["POST", "/v1/responses"] = Reply(
            pieces=[b"event: a\n\n", gate, b"event: b\n\n"]
        )
        with anyio.fail_after(5):
            async with asked.forward("POST", "responses", headers=JSON, body=b"{}") as found:
                pieces = aiter(found)
                assert await anext(pieces) == b"event: a\n\n"
                gate.set()
                assert [piece async for piece in pieces] == [b"event: b\n\n"]


@pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500, 503])
async def test_an_error_status_is_an_answer(status: int) -> None:
    said = whole({"error": {"message": "no"}}, status=status, headers={"x-request-id": "r1"})
    async with ScriptedInference() as server, inference(at(server)) as asked:
        server.routes["GET", "/v1/files"] = said
        async with asked.forward("GET", "files") as found:
            body = b"".join([piece async for piece in found])
    assert (found.status, body) == (status, said.pieces[0])
    assert ("x-request-id", "r1") in found.headers
    assert len(server.others) == 1


async def test_headers_of_one_connection_and_of_the_server_stay_there() -> None:
    headers = {
        "content-type": "audio/mpeg",
        "connection": "keep-alive, x-hop",
        "x-hop": "1",
        "keep-alive": "timeout=5",
        "set-cookie": "session=1",
        "strict-transport-security": "max-age=1",
        "alt-svc": 'h3=":443"',
        "x-kept": "1",
    }
    async with ScriptedInference() as server, inference(at(server)) as asked:
        server.routes["GET", "/v1/files"] = Reply(headers=headers, pieces=[b"x"])
        async with asked.forward("GET", "files") as found:
            pass
    assert dict(found.headers) == {"content-type": "audio/mpeg", "x-kept": "1"}


@pytest.mark.parametrize(("asks", "sent"), [("gzip, br", "gzip, br"), (None, "identity")])
async def test_compression_is_between_the_client_and_the_server(
    asks: str | None, sent: str
) -> None:
    packed = gzip.compress(b"hello")
    headers = [("accept-encoding", asks)] if asks else []
    async with ScriptedInference() as server, inference(at(server)) as asked:
        server.routes["GET", "/v1/files"] = Reply(
            headers={"content-encoding": "gzip"}, pieces=[packed]
        )
        async with asked.forward("GET", "files", headers=headers) as found:
            body = b"".join([piece async for piece in found])
    assert server.others[0].headers["accept-encoding"] == sent
    assert body == packed
    assert ("content-encoding", "gzip") in found.headers


async def test_a_server_that_is_out_of_reach_is_an_error() -> None:
    with closed_port() as port:
        async with inference(InferenceServer(base_url=f"http://127.0.0.1:{port}/v1")) as asked:
            with pytest.raises(InferenceError, match="connection refused") as caught:
                await echo(asked, "GET", "files")
    assert (caught.value.status, caught.value.unsent) == (502, True)


@pytest.mark.parametrize("body", [b"{}", None])
async def test_the_next_server_is_asked_when_nothing_was_sent(body: bytes | None) -> None:
    headers = [*JSON, ("content-length", "2")]
    with closed_port() as port:
        gone = InferenceServer(base_url=f"http://127.0.0.1:{port}/v1")
        async with ScriptedInference() as server, inference(gone, at(server)) as asked:
            given = pieces_of(b"{", b"}") if body is None else body
            await echo(asked, "POST", "embeddings", headers=headers, body=given)
    assert server.others[0].body == b"{}"


async def test_a_request_that_may_have_been_worked_on_is_sent_once() -> None:
    async with (
        ScriptedInference() as one,
        ScriptedInference() as two,
        inference(at(one), at(two)) as asked,
    ):
        one.routes["POST", "/v1/files"] = refuse()
        with pytest.raises(InferenceError):
            await echo(asked, "POST", "files", body=b"x")
    assert (len(one.others), len(two.others)) == (1, 0)


async def test_a_request_with_a_model_goes_to_its_server() -> None:
    async with (
        ScriptedInference() as one,
        ScriptedInference() as two,
        inference(at(one, models=["a"]), at(two, models=["b"])) as asked,
    ):
        await echo(asked, "POST", "embeddings", body=b"{}", model="b")
    assert (len(one.others), len(two.others)) == (0, 1)


async def test_an_answer_that_nobody_reads_is_closed() -> None:
    async with ScriptedInference() as server, inference(at(server, max_connections=1)) as asked:
        server.routes["GET", "/v1/files"] = Reply(pieces=[b"half"], end="hang")
        with anyio.fail_after(5):
            async with asked.forward("GET", "files"):
                pass
            await server.others[0].gone.wait()
            await echo(asked, "GET", "models/a")


async def test_leaving_closes_the_connection() -> None:
    async with ScriptedInference() as server, inference(at(server)) as asked:
        server.routes["GET", "/v1/files"] = Reply(pieces=[b"half"], end="hang")
        with anyio.fail_after(5):
            async with asked.forward("GET", "files") as found:
                assert await anext(aiter(found)) == b"half"
            await server.others[0].gone.wait()


@pytest.mark.parametrize(
    ("end", "words"), [("cut", "broke off in the middle"), ("hang", "idle_timeout")]
)
async def test_half_an_answer_is_an_error(end: Any, words: str) -> None:
    async with ScriptedInference() as server, inference(at(server, idle_timeout=0.1)) as asked:
        server.routes["GET", "/v1/files"] = Reply(pieces=[b"half"], end=end)
        with anyio.fail_after(5), pytest.raises(InferenceError, match=words):
            await echo(asked, "GET", "files")


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    async with (
        ScriptedInference() as server,
        inference(at(server, first_byte_timeout=0.1)) as asked,
    ):
        server.routes["POST", "/v1/files"] = Reply(end="hang", refused=True)
        with anyio.fail_after(5), pytest.raises(InferenceError, match="first_byte_timeout"):
            await echo(asked, "POST", "files", body=b"x")


async def test_a_length_is_said_once_when_a_body_had_to_be_read() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    async with serving(says(answer)) as site:
        azure = InferenceServer(base_url=site.url, api_version="1", api_key=SecretStr(KEY))
        headers = [*JSON, ("content-length", "2")]
        async with inference(azure) as asked:
            await echo(asked, "POST", "embeddings", headers=headers, body=pieces_of(b"{", b"}"))
    assert site.heads[0].count("content-length: 2") == 1


async def test_a_body_that_was_read_for_one_server_is_there_for_the_next() -> None:
    with closed_port() as port:
        gone = InferenceServer(
            base_url=f"http://127.0.0.1:{port}", api_version="1", api_key=SecretStr(KEY)
        )
        async with ScriptedInference() as server, inference(gone, at(server)) as asked:
            await echo(asked, "POST", "embeddings", body=pieces_of(b"{", b"}"))
    assert server.others[0].body == b"{}"


class ClientHasLeft(Exception):
    """What breaks off a body."""


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"])
async def test_what_breaks_off_a_body_holds_nothing(answer: bytes) -> None:
    failures: list[weakref.ref[Exception]] = []

    async def body(site: Site) -> AsyncIterator[bytes]:
        yield b"half"
        while not site.heads:  # nobody tells when one has come
            await anyio.lowlevel.checkpoint()
        failure = ClientHasLeft()
        failures.append(weakref.ref(failure))
        raise failure

    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        await site.head(reader)
        writer.write(answer)
        await reader.read()

    async with serving(talk) as site, inference(InferenceServer(base_url=site.url)) as asked:
        gc.disable()
        try:
            with anyio.fail_after(5), pytest.raises((ClientHasLeft, InferenceError)):
                await echo(asked, "POST", "files", body=body(site))
            await anyio.wait_all_tasks_blocked()
            assert [failure() for failure in failures] == [None]
        finally:
            gc.enable()


@pytest.mark.parametrize("streamed", [True, False])
async def test_azure_finds_the_deployment_in_the_body(streamed: bool) -> None:
    body = b'{"model": "ada", "input": "x"}'
    async with ScriptedInference() as server:
        azure = {"base_url": f"http://127.0.0.1:{server.port}", "api_version": "1"}
        async with inference(at(server, api_key=KEY, **azure)) as asked:
            given = pieces_of(body[:5], body[5:]) if streamed else body
            headers = [*JSON, ("content-length", str(len(body)))]
            await echo(asked, "POST", "embeddings", headers=headers, body=given)
            await echo(asked, "GET", "files", query="api-version=2")
    first, second = server.others
    assert first.path == "/openai/deployments/ada/embeddings?api-version=1"
    assert (first.body, first.headers["api-key"]) == (body, KEY)
    assert second.path == "/openai/files?api-version=2"
