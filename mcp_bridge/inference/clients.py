"""The connection pool of one server, and what lets us in.

The openai package knows the credentials of OpenAI and of Azure; it fills what it is not given from
the environment, so everything is given to it. Bytes go through aiohttp: measured, an answer costs
less than half of the CPU time that it costs through the HTTP client under the openai package
(docs/performance.md).
"""

import io
import ssl
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from mcp_bridge.config.settings import InferenceServer
from mcp_bridge.inference.address import Address
from mcp_bridge.inference.headers import Headers
from mcp_bridge.proxy import proxy_for

NO_KEY = frozenset({"", "none", "null"})
KEEP_ALIVE_SECONDS = 60.0
SHORTEST_SECRET = 6
"""Shorter ones are not looked for in what a server says: they would be found in any text."""

AUTOMATIC = frozenset({"accept", "accept-encoding", "content-type", "user-agent"})
"""Headers that aiohttp would add by itself."""

AT_ONCE = 2**20
"""A larger body is written in pieces, so that other requests get their turn."""

CREDENTIALS = frozenset({"authorization", "api-key"})


@dataclass(frozen=True, slots=True)
class Arrived:
    """An answer whose head has arrived.

    `read` waits for its next bytes, and gives none at the end. `close` gives the connection back to
    the pool, or closes it when the answer is not at its end; whoever reads then fails.
    """

    status: int
    headers: Mapping[str, str]
    raw_headers: Sequence[tuple[bytes, bytes]]
    read: Callable[[], Awaitable[bytes]]
    at_end: Callable[[], bool]
    close: Callable[[], None]


class Clients:
    """The pool of a server. Made in a running event loop; no connection is open yet.

    Raises:
        BadProxy: the proxy that the environment names cannot be used.
    """

    def __init__(self, settings: InferenceServer, address: Address) -> None:
        self.headers = {**credentials(settings), **given_headers(settings)}
        for value in self.headers.values():
            value.encode("ascii")  # aiohttp would write anything as UTF-8, which no server reads
        proxy = None if address.is_local else proxy_for(URL(address.url))
        self._connector = aiohttp.TCPConnector(
            limit=0,  # the endpoint counts, so that it can say what is waited for
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            ssl=trusted(address),
        )
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout)
        self._decoded, self._raw = (
            aiohttp.ClientSession(
                connector=self._connector,
                connector_owner=False,
                timeout=timeout,
                # The callers share it: a cookie given to one must not be sent for another.
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=proxy,
                auto_decompress=decoding,
                skip_auto_headers=AUTOMATIC,
            )
            for decoding in (True, False)
        )

    def with_credentials(self, headers: Headers) -> Headers:
        """A request's headers with ours, which win; others' credentials are left out."""
        ours = self.headers
        kept = [(k, v) for k, v in headers if k not in ours and k not in CREDENTIALS]
        return [*kept, *ours.items()]

    async def send(
        self,
        method: str,
        url: str,
        headers: Headers,
        body: AsyncIterable[bytes] | bytes | None = None,
        *,
        raw: bool = False,
    ) -> Arrived:
        """Send a request and wait for the head of its answer; `raw`: compressed as it came.

        Redirects are not followed: they would take our key elsewhere.
        """
        response = await (self._raw if raw else self._decoded).request(
            method,
            URL(url, encoded=True),
            headers=CIMultiDict(headers),
            data=io.BytesIO(body) if isinstance(body, bytes) and len(body) > AT_ONCE else body,
            allow_redirects=False,
        )
        return Arrived(
            response.status,
            response.headers,
            response.raw_headers,
            response.content.readany,
            response.content.at_eof,
            response.close,
        )

    async def aclose(self) -> None:
        for session in (self._decoded, self._raw):
            await session.close()
        await self._connector.close()


def trusted(address: Address) -> ssl.SSLContext | bool:
    """The certificates to trust: none on this machine without TLS, for loading them takes 20 ms."""
    if address.is_local and address.url.startswith("http://"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return True


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
