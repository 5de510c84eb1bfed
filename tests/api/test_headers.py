"""A request's headers as the doors of OpenAI clients look at them."""

from mcp_bridge.api.headers import Headers

RAW = [(b"x-api-key", b"first"), (b"accept", b"*/*"), (b"x-api-key", b"caf\xe9")]


def test_the_first_of_a_header_counts_and_none_is_lost() -> None:
    headers = Headers(iter(RAW))
    assert headers["x-api-key"] == "first"
    assert headers.get("cookie") is None
    assert headers.each("x-api-key") == ["first", "caf\xe9"]
    assert headers.each("cookie") == []
    assert headers.pairs == [("x-api-key", "first"), ("accept", "*/*"), ("x-api-key", "caf\xe9")]
