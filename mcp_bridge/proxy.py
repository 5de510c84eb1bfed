"""The proxy of the environment, looked up once for each server and not for each request."""

import ipaddress
from urllib.request import getproxies, proxy_bypass

from yarl import URL

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class BadProxy(ValueError):
    """The environment names a proxy that cannot be used; the message says which and why."""


def proxy_for(url: URL) -> URL | None:
    """The proxy to reach `url` through. It is meant for the world, not for this machine.

    Raises:
        BadProxy: it is none that we can use.
    """
    host = url.host or ""
    given = getproxies()
    found = given.get(url.scheme) or given.get("all")
    if not found or host in LOOPBACK or proxy_bypass(f"{host}:{url.port}"):
        return None
    if any(_holds(network, host) for network in given.get("no", "").split(",")):
        return None
    proxy = URL(found if "://" in found else f"http://{found}")
    if proxy.scheme not in ("http", "https"):
        shown = proxy.with_user(None).with_query(None).with_fragment(None)
        raise BadProxy(f"a proxy must be http:// or https://, not {shown}")
    return proxy


def _holds(network: str, host: str) -> bool:
    """Whether an entry of NO_PROXY such as 192.168.0.0/16 holds this address."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network.strip(), strict=False)
    except ValueError:
        return False
