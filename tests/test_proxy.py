"""The proxy that the environment names, for MCP servers and inference servers alike."""

import pytest

from mcp_bridge.config.settings import InferenceServer
from mcp_bridge.errors import InferenceError
from mcp_bridge.inference.transport import MISCONFIGURED, Endpoint
from mcp_bridge.proxy import BadProxy, proxy_for

PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({}, "http://host/", None),
        ({"http_proxy": PROXY}, "http://host/", PROXY),
        ({"http_proxy": PROXY}, "https://host/", None),
        ({"https_proxy": "proxy:3128"}, "https://host/", PROXY),
        ({"all_proxy": PROXY}, "https://host/", PROXY),
        ({"http_proxy": PROXY}, "http://127.0.0.1:8000/", None),
        ({"http_proxy": PROXY}, "http://localhost/", None),
        ({"http_proxy": PROXY, "no_proxy": "host"}, "http://host/", None),
        ({"http_proxy": PROXY, "no_proxy": ".org"}, "http://host.org/", None),
        ({"http_proxy": PROXY, "no_proxy": "*"}, "http://host/", None),
        ({"http_proxy": PROXY, "no_proxy": "10.0.0.0/8"}, "http://10.2.3.4/", None),
        ({"http_proxy": PROXY, "no_proxy": "10.0.0.0/8,x"}, "http://11.2.3.4/", PROXY),
    ],
)
def test_the_environment_names_the_proxy(
    environment: dict[str, str], url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == expected


def test_a_proxy_of_another_kind_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", "socks5://user:hunter22@proxy:1080")
    with pytest.raises(BadProxy, match=r"socks5://\S*proxy:1080") as info:
        proxy_for("http://host/")
    assert "hunter22" not in str(info.value)


async def test_a_model_behind_a_proxy_that_cannot_be_used_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", "socks5://proxy:1080")
    endpoint = Endpoint(InferenceServer(base_url="http://models.invalid/v1"))
    with pytest.raises(InferenceError, match=r"socks5://\S*proxy:1080") as info:
        await endpoint.get("models")
    assert info.value.code == MISCONFIGURED
