"""Where the bridge may connect when a caller names the address (X8).

MCP servers often live on the local network, so private addresses are allowed; what no MCP server
has is a link-local address, which is where clouds serve their credentials.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

import anyio

from mcp_bridge.errors import RequestError


async def check_address(url: str, param: str) -> None:
    """See that a URL from a request may be connected to.

    Raises:
        RequestError: 400, it is no http(s) URL, or leads to an address that is off limits.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise RequestError(f"{param} must be an http or https URL", param=param)
    for address in await addresses_of(host, port or (443 if parts.scheme == "https" else 80)):
        if off_limits(address):
            raise RequestError(
                f"{param}: {host} is a link-local or unusable address, where no MCP server is",
                param=param,
                code="address_not_allowed",
            )


async def addresses_of(host: str, port: int) -> list[str]:
    """What a name stands for; nothing when nobody knows it (connecting will say so)."""
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(sockaddr[0]) for *_, sockaddr in found]


def off_limits(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_link_local or address.is_multicast or address.is_unspecified
