"""The proxy of the environment, looked up once for each server and not for each request."""

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from mcp_bridge.config.redact import without_secrets

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
PORTS = {"http": 80, "https": 443}


class BadProxy(ValueError):
    """The environment names a proxy that cannot be used; the message says which and why."""


def proxy_for(url: str) -> str | None:
    """The proxy to reach `url` through. It is meant for the world, not for this machine.

    Raises:
        BadProxy: it is none that we can use.
        ValueError: the URL is none.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme)
    given = getproxies()
    found = given.get(parts.scheme) or given.get("all")
    if not found or host in LOOPBACK or proxy_bypass(f"{host}:{port}"):
        return None
    if any(_holds(network, host) for network in given.get("no", "").split(",")):
        return None
    proxy = found if "://" in found else f"http://{found}"
    if urlsplit(proxy).scheme not in PORTS:
        raise BadProxy(f"a proxy must be http:// or https://, not {without_secrets(proxy)}")
    return proxy


def _holds(network: str, host: str) -> bool:
    """Whether an entry of NO_PROXY such as 192.168.0.0/16 holds this address."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network.strip(), strict=False)
    except ValueError:
        return False
