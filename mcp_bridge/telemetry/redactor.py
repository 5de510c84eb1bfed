"""The last line of defence: secrets of the configuration never leave in a text.

Nothing is meant to write a secret in the first place. But other people's code writes, too: an
exception of a library may hold a URL with its password, a server may print its token at start.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote

from pydantic import SecretStr

from mcp_bridge.config.redact import HIDDEN, hidden_arguments, without_secrets
from mcp_bridge.config.settings import Section, Settings

MASK = "***"
LEAST = 6
"""Characters: shorter values (`1`, `true`, `info`) are hardly secrets, but in every second line."""


class Redactor:
    """Replaces secrets in texts by `***`, also where they are escaped or percent-encoded."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        told = {text for secret in secrets if len(secret) >= LEAST for text in _spellings(secret)}
        longest_first = sorted(told, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if told else None

    @classmethod
    def of(cls, settings: Settings) -> "Redactor":
        """One for the secrets of these settings."""
        return cls(secrets_of(settings))

    def __call__(self, text: str) -> str:
        if self._pattern is None or self._pattern.search(text) is None:
            return text
        return self._pattern.sub(MASK, text)

    def json(self, value: Any) -> Any:
        """The same for every text inside JSON; what JSON does not know becomes text."""
        match value:
            case str():
                return self(value)
            case float():
                return value if math.isfinite(value) else str(value)
            case None | bool() | int():
                return value
            case dict():
                return {self(str(key)): self.json(item) for key, item in value.items()}
            case list() | tuple():
                return [self.json(item) for item in value]
            case _:
                return self(str(value))


def secrets_of(settings: Settings) -> frozenset[str]:
    """Every secret in the settings: keys, headers, variables, and those in URLs and arguments."""
    found = set(_declared(settings))
    for server in settings.inference_server:
        found.update(_hidden_in(server.base_url, without_secrets(server.base_url)))
    for entry in settings.mcp_servers.values():
        texts = [entry.url] if entry.url else []
        shown = [without_secrets(url) for url in texts] + list(hidden_arguments(entry.args))
        for text, hidden in zip([*texts, *entry.args], shown, strict=True):
            found.update(_hidden_in(text, hidden))
    return frozenset(found)


def _declared(value: Any) -> Iterator[str]:
    match value:
        case SecretStr():
            secret = value.get_secret_value()
            yield secret
            yield secret.rpartition(" ")[2]  # "Bearer x": the token may be written without the word
        case Section():
            for name in type(value).model_fields:
                yield from _declared(getattr(value, name))
        case dict():
            for item in value.values():
                yield from _declared(item)
        case tuple():
            for item in value:
                yield from _declared(item)


def _hidden_in(text: str, shown: str) -> Iterator[str]:
    """What was hidden of a text, found by comparing it with what may be shown."""
    first, *others = shown.split(HIDDEN)
    if not text.startswith(first):
        return
    at = len(first)
    for known in others:
        end = text.find(known, at) if known else len(text)
        if end < 0:
            return
        part = text[at:end].strip()
        for piece in (part, part.rpartition(" ")[2], part.partition(":")[2]):  # user:password
            yield from (piece, unquote(piece))
        at = end + len(known)


def _spellings(secret: str) -> Iterator[str]:
    """The secret as it is, in a URL, in JSON, and in Python's quotes."""
    yield secret
    yield quote(secret, safe="")
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
