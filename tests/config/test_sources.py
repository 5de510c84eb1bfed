"""A configuration behind a URL."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mcp_bridge.config.load import load
from mcp_bridge.errors import ConfigError
from tests.config.reading import Reader

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """`host:port` of an HTTP server on loopback that answers every GET so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def saying(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def variables(url: str) -> dict[str, str]:
    return {"MCP_BRIDGE__CONFIG__HTTP_URL": url}


def test_a_url_is_read_between_the_file_and_the_inline_json(read: Reader) -> None:
    body = {"network": {"port": 2}, "limits": {"max_rounds": 2}, "toolsets": {"t": {}}}
    with serving(saying(json.dumps(body).encode())) as host:
        environ = variables(f"http://{host}/c.json?token=hunter2")
        environ["MCP_BRIDGE__CONFIG__JSON"] = '{"limits": {"max_rounds": 3}}'
        loaded = read({"network": {"port": 1, "host": "::1"}}, environ)
    assert loaded.settings.network.port == 2
    assert loaded.settings.network.host == "::1"
    assert loaded.settings.limits.max_rounds == 3
    assert loaded.sources == (
        str(read.file),
        f"http://{host}/c.json",
        "MCP_BRIDGE__CONFIG__JSON",
    )


def test_the_urls_password_is_sent_and_never_told(read: Reader) -> None:
    asked: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.headers["authorization"])
        saying(b"", 403)(request)

    with serving(answer) as host:
        environ = variables(f"http://user:hunter2@{host}/c.json?token=hunter3")
        (mistake,) = read.mistakes({}, environ)
    assert asked[0] is not None
    assert asked[0].startswith("Basic ")
    assert mistake == (
        f"MCP_BRIDGE__CONFIG__HTTP_URL (http://{host}/c.json): the server answered 403"
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (saying(b"{", 200), "line 1, column 2: "),
        (saying(b"<html>", 200), "line 1, column 1: a value belongs here"),
        (saying(b"", 404), "the server answered 404"),
        (saying(b"", 302, location="http://elsewhere.invalid/"), "it redirects elsewhere"),
        (lambda request: request.connection.close(), "the server cannot be reached ("),
    ],
)
def test_what_is_wrong_with_the_url_is_told(read: Reader, answer: Answer, said: str) -> None:
    with serving(answer) as host:
        (mistake,) = read.mistakes({}, variables(f"http://{host}/c.json"))
    assert mistake.startswith(("MCP_BRIDGE__CONFIG__HTTP_URL", f"http://{host}/c.json"))
    assert said in mistake


def test_a_server_that_is_not_there_is_told(read: Reader) -> None:
    with serving(saying(b"{}")) as host:
        pass
    (mistake,) = read.mistakes({}, variables(f"http://{host}/c.json"))
    assert mistake.endswith("the server cannot be reached (ConnectError)")


@pytest.mark.parametrize("url", ["config.json", "ftp://x/y", "http://", "file:///x"])
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(ConfigError, match="expected an address such as https://host/config"):
        load(environ=variables(url))
