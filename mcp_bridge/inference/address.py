"""Where an inference server is, whatever way its URL was written.

`base_url` is the place below which `/chat/completions` is, as the openai package has it. People
also write it with a slash at the end, with a doubled slash, or paste the whole endpoint. Azure has
the deployment in the path of some endpoints; the openai package puts it there only when it may
encode the body itself, so the rule is here once more.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from mcp_bridge.config.redact import without_secrets
from mcp_bridge.config.settings import InferenceServer
from mcp_bridge.errors import RequestError

ENDPOINT = "/chat/completions"
IN_PATH = "/:@!$&'()*+,;=~%"
"""What a path may hold unquoted: what is quoted already stays as it is."""

LONE_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")

DEPLOYMENT_ENDPOINTS = frozenset(
    {
        "audio/speech",
        "audio/transcriptions",
        "audio/translations",
        "chat/completions",
        "completions",
        "embeddings",
        "images/edits",
        "images/generations",
    }
)
"""Azure: the deployment is in their path."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Address:
    """A base URL in parts: `url` without slash at the end, `query` for every request."""

    url: str
    host: str
    """Host and port, as people name a server."""

    query: dict[str, str] = field(default_factory=dict)
    is_local: bool = False
    is_azure: bool = False

    @classmethod
    def of(cls, server: InferenceServer) -> "Address":
        try:
            parts = urlsplit(server.base_url.strip())
            is_local = parts.hostname in LOOPBACK
        except ValueError:  # no URL: what it is asked for will say so
            return cls("", "?")
        path = re.sub("/{2,}", "/", parts.path).rstrip("/").removesuffix(ENDPOINT)
        query = dict(parse_qsl(parts.query))
        if server.api_version:
            path = path or "/openai"
            query["api-version"] = server.api_version
        url = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        host = parts.netloc.rpartition("@")[2] or "?"
        return cls(url, host, query, is_local, bool(server.api_version))

    @property
    def shown(self) -> str:
        """For messages and logs."""
        return without_secrets(self.url)

    def names_deployment(self, path: str) -> bool:
        """Whether Azure wants to see the deployment in this path."""
        by_deployment = not self.url.endswith("/v1") and "/deployments/" not in f"{self.url}/"
        return self.is_azure and by_deployment and path in DEPLOYMENT_ENDPOINTS

    def path(self, path: str, model: str | None) -> str:
        """The path below `url`, quoted.

        Raises:
            RequestError: it points outside of `url`.
        """
        path = path.lstrip("/")
        steps = unquote(path).split("/")
        if "." in steps or ".." in steps:
            raise RequestError("a path must not hold . or .. steps", code="invalid_path")
        quoted = LONE_PERCENT.sub("%25", quote(path, safe=IN_PATH))
        if model and self.names_deployment(path):
            return f"deployments/{quote(model, safe='')}/{quoted}"
        return quoted

    def full(self, path: str, query: str, model: str | None) -> str:
        """The whole URL of a request that is passed on; what its query says wins over ours."""
        given = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
        ours = urlencode({name: value for name, value in self.query.items() if name not in given})
        joined = "&".join(filter(None, (query, ours)))
        return f"{self.url}/{self.path(path, model)}" + (f"?{joined}" if joined else "")
