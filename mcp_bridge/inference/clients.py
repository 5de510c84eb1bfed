"""The openai package's client of one server, its connection pool, and what lets us in.

The package fills what it is not given from the environment (keys, organisation, project). Here
everything comes from the settings, and is said with each request.
"""

import ssl
from http.cookiejar import DefaultCookiePolicy

import httpx2
from openai import AsyncAzureOpenAI, AsyncOpenAI, Omit

from mcp_bridge.config.settings import InferenceServer
from mcp_bridge.inference.address import Address
from mcp_bridge.inference.headers import Headers

NO_KEY = frozenset({"", "none", "null"})
PLACEHOLDER = "none"
"""The openai package insists on a key; the header that it makes of this one is left out."""

LEFT_OUT = Omit()
FROM_ENVIRONMENT = ("authorization", "api-key", "openai-organization", "openai-project")

POOL_SECONDS = 30.0
"""How long a request waits for a free connection of the pool."""

KEEP_ALIVE_SECONDS = 60.0
SHORTEST_SECRET = 6
"""Shorter ones are not looked for in what a server says: they would be found in any text."""


class Clients:
    """The openai client of a server and the HTTP client under it. No connection is open yet."""

    def __init__(self, settings: InferenceServer, address: Address) -> None:
        self.http = http_client(settings, address)
        self.openai = openai_client(settings, address, self.http)
        self.headers: dict[str, str | Omit] = dict.fromkeys(FROM_ENVIRONMENT, LEFT_OUT)
        if key_of(settings):
            self.headers |= {k.lower(): v for k, v in self.openai.auth_headers.items()}
        self.headers |= given_headers(settings)

    def with_credentials(self, headers: Headers) -> Headers:
        """A request's headers with ours, which win."""
        ours = {name: value for name, value in self.headers.items() if isinstance(value, str)}
        return [(name, value) for name, value in headers if name not in ours] + [*ours.items()]


def http_client(settings: InferenceServer, address: Address) -> httpx2.AsyncClient:
    """The connection pool of a server."""
    http = httpx2.AsyncClient(
        verify=trusted(address),
        timeout=httpx2.Timeout(None, connect=settings.connect_timeout, pool=POOL_SECONDS),
        limits=httpx2.Limits(
            max_connections=settings.max_connections,
            max_keepalive_connections=settings.max_connections,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
        ),
        # A proxy in the environment is meant for the world, not for this machine.
        trust_env=not address.is_local,
        # A redirect would take our key elsewhere, and a POST that follows one may become a GET.
        follow_redirects=False,
    )
    # The callers share this client: a cookie given to one must not be sent for another.
    http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))
    return http


def trusted(address: Address) -> ssl.SSLContext | bool:
    """The certificates to trust: none on this machine without TLS, for loading them takes 20 ms."""
    if address.is_local and address.url.startswith("http://"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return True


def openai_client(
    settings: InferenceServer, address: Address, http: httpx2.AsyncClient
) -> AsyncOpenAI:
    """The openai package's client on that pool."""
    key = key_of(settings) or PLACEHOLDER
    if settings.api_version:
        return AsyncAzureOpenAI(
            api_key=key,
            api_version=settings.api_version,
            base_url=address.url,
            default_query=address.query,
            max_retries=0,
            http_client=http,
        )
    return AsyncOpenAI(
        api_key=key,
        base_url=address.url,
        default_query=address.query,
        max_retries=0,
        http_client=http,
    )


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
