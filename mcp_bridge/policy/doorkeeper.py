"""From a request's headers to the Caller."""

import hmac
from collections.abc import Mapping

from mcp_bridge.config.settings import ApiKey, Auth
from mcp_bridge.errors import RequestError
from mcp_bridge.types import ANYONE, Caller


class Doorkeeper:
    """Knows the keys. One for all doors, so that a key means the same everywhere."""

    def __init__(self, auth: Auth) -> None:
        self._enabled = auth.enabled
        self._keys = tuple(
            (key.key.get_secret_value().encode(), caller_of(key, number))
            for number, key in enumerate(auth.api_keys, 1)
        )

    def admit(self, headers: Mapping[str, str], scope: str) -> Caller:
        """The caller whose key is in `Authorization: Bearer …` or `x-api-key`.

        Raises:
            RequestError: 401 without a valid key, 403 when the key does not open `scope`.
        """
        if not self._enabled:
            return ANYONE
        given = key_in(headers)
        if given is None:
            raise RequestError(
                "no API key was sent: send it as 'Authorization: Bearer KEY'",
                code="invalid_api_key",
                status=401,
            )
        caller = self._find(given)
        if caller is None:
            raise RequestError(
                "the API key is not known here: check the key in your client's settings",
                code="invalid_api_key",
                status=401,
            )
        if scope not in caller.scopes:
            raise RequestError(
                f"this API key does not open {scope!r}: the operator can add it to its scopes",
                code="insufficient_scope",
                status=403,
            )
        return caller

    def _find(self, given: bytes) -> Caller | None:
        """Compares with every key in constant time, so that time tells nothing about them."""
        found = None
        for key, caller in self._keys:
            if hmac.compare_digest(key, given):
                found = caller
        return found


def key_in(headers: Mapping[str, str]) -> bytes | None:
    """The key that a request carries, as the bytes that came (any bytes may come)."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip().encode("latin-1")
    key = headers.get("x-api-key", "").strip()
    return key.encode("latin-1") if key else None


def caller_of(key: ApiKey, number: int) -> Caller:
    return Caller(
        name=key.name or f"key-{number}",
        tenant=key.tenant,
        scopes=frozenset(key.scopes),
        toolset=key.toolset,
        tools=key.tools,
    )
