"""What is sent before a body can hold nothing that would change what it means."""

import pytest

from mcp_bridge.http1.failures import BadUrl
from mcp_bridge.http1.head import Origin, header_lines, request_line


@pytest.mark.parametrize(
    ("url", "authority", "header"),
    [
        ("http://Host/x", "host:80", "host"),
        ("https://host", "host:443", "host"),
        ("http://host:443/", "host:443", "host:443"),
        ("http://[::1]:80/", "[::1]:80", "[::1]"),
        ("http://user:pass@host:8000/", "host:8000", "host:8000"),
        ("http://bücher.test/", "xn--bcher-kva.test:80", "xn--bcher-kva.test"),
    ],
)
def test_an_origin_is_named_as_http_names_it(url: str, authority: str, header: str) -> None:
    origin = Origin.of(url)
    assert (origin.authority, origin.host_header) == (authority, header)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://host", "/"),
        ("http://host?a=b", "/?a=b"),
        ("http://host/a%2Fb?c=%20#fragment", "/a%2Fb?c=%20"),
        ("http://host/é?ü=1", "/%C3%A9?%C3%BC=1"),
    ],
)
def test_a_target_is_what_stands_behind_the_host(url: str, target: str) -> None:
    assert Origin.of(url).target(url) == target


@pytest.mark.parametrize("path", ["/a b", "/a\x00", "/a?b c"])
def test_a_target_holds_nothing_that_ends_its_line(path: str) -> None:
    with pytest.raises(BadUrl):
        Origin.of("http://host").target(f"http://host{path}")


@pytest.mark.parametrize(
    "header",
    [("a", "b\r\nc: d"), ("a", "b\nc"), ("a\r\nb", "c"), ("a", "b\0"), ("a", "b\r"), ("a", "ü")],
)
def test_a_header_holds_nothing_that_ends_its_line(header: tuple[str, str]) -> None:
    with pytest.raises(ValueError):
        header_lines([header])


@pytest.mark.parametrize("method", ["", "GET /x", "GÉT", "A\r\nB"])
def test_a_method_is_a_word(method: str) -> None:
    with pytest.raises(ValueError):
        request_line(method, "/")
