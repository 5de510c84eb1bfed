"""The connections to one inference server, and what lets us in.

The openai package knows the credentials of OpenAI and of Azure; it fills what it is not given from
the environment, so everything is given to it. Bytes go through `http1`: measured, a round costs
300,000 instructions less than through aiohttp, and less than a tenth of what it costs through the
HTTP client under the openai package (docs/performance.md).
"""

from collections.abc import Iterable

from mcp_bridge.config.settings import InferenceServer
from mcp_bridge.http1.head import header_lines, is_name
from mcp_bridge.http1.pool import Body, Pool, Request
from mcp_bridge.inference.address import Address
from mcp_bridge.proxy import proxy_for

NO_KEY = frozenset({"", "none", "null"})
SHORTEST_SECRET = 6
"""Shorter ones are not looked for in what a server says: they would be found in any text."""

CREDENTIALS = frozenset({"authorization", "api-key"})


class Clients:
    """The connections to a server. Made in a running event loop; none is open yet.

    Raises:
        BadProxy: the proxy that the environment names cannot be used.
        ValueError: the URL is none, or a header holds what HTTP cannot carry.
    """

    def __init__(self, settings: InferenceServer, address: Address) -> None:
        ours = {**credentials(settings), **given_headers(settings)}
        self._pool = Pool(
            address.url,
            connect_timeout=settings.connect_timeout,
            proxy=None if address.is_local else proxy_for(address.url),
            host=ours.pop("host", None),
        )
        if self._pool.origin.login is not None:
            ours.setdefault("authorization", self._pool.origin.login)
        if not all(map(is_name, ours)):
            raise ValueError("a header has a name that is none")
        self._ours = header_lines(ours.items())
        self._withheld = CREDENTIALS | ours.keys()

    async def send(
        self, method: str, url: str, headers: Iterable[tuple[str, str]], body: Body = None
    ) -> Request:
        """Send a request with our headers, which win, and wait for the head of its answer.

        Redirects are not followed: they would take our key elsewhere.
        """
        withheld = self._withheld
        theirs = header_lines(pair for pair in headers if pair[0] not in withheld)
        return await self._pool.send(method, url, self._ours + theirs, body)

    async def aclose(self) -> None:
        await self._pool.aclose()


def credentials(settings: InferenceServer) -> dict[str, str]:
    """The header that carries the key, as the openai package names it."""
    key = key_of(settings)
    if key is None:
        return {}
    # Here, for local servers have no key: without the package the bridge is 20 MiB smaller.
    from openai import AsyncAzureOpenAI, AsyncOpenAI

    client: AsyncOpenAI
    if settings.api_version:
        client = AsyncAzureOpenAI(
            api_key=key, api_version=settings.api_version, base_url=settings.base_url
        )
    else:
        client = AsyncOpenAI(api_key=key, base_url=settings.base_url)
    return {name.lower(): value for name, value in client.auth_headers.items()}


def key_of(settings: InferenceServer) -> str | None:
    """The key, unless it says that there is none."""
    key = settings.api_key.get_secret_value().strip() if settings.api_key else ""
    return None if key.lower() in NO_KEY else key


def given_headers(settings: InferenceServer) -> dict[str, str]:
    """The extra headers; a secret that comes from a file often ends in a line break."""
    return {
        name.lower(): value.get_secret_value().strip() for name, value in settings.headers.items()
    }


def secrets_of(settings: InferenceServer) -> tuple[bytes, ...]:
    """What must not be seen in an answer, should the server repeat it."""
    values = [key_of(settings) or "", *given_headers(settings).values()]
    words = {word for value in values for word in (value, value.rpartition(" ")[2])}
    return tuple(word.encode() for word in words if len(word) >= SHORTEST_SECRET)
