"""Loading: sources are read, merged, substituted and validated, in this order.

    file < URL < inline JSON < MCP_BRIDGE__… variables < overrides (the command line)

Every mistake is found before anything is raised, so that one run shows all of them. A value that is
missing inside an MCP server disables that server only.
"""

import os
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from mcp_bridge.config.entries import settle
from mcp_bridge.config.merge import Layer, merge
from mcp_bridge.config.names import canonical
from mcp_bridge.config.safety import findings
from mcp_bridge.config.settings import Settings
from mcp_bridge.config.shape import Path, shape_at
from mcp_bridge.config.sources import DEFAULT_FILE, Sources, read_sources
from mcp_bridge.config.substitute import Missing, substitute
from mcp_bridge.config.variables import read_variables
from mcp_bridge.config.wording import complaint, did_you_mean, spell
from mcp_bridge.errors import ConfigError
from mcp_bridge.types import Json

COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and where it came from.

    `sources` name what was read, for people. `digests` are the files that it depends on (the
    configuration and those named by `${file:…}`), None for one that is not there (yet).
    """

    settings: Settings
    warnings: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    digests: Mapping[pathlib.Path, str | None] = field(default_factory=dict)

    @property
    def files(self) -> tuple[pathlib.Path, ...]:
        """The files to watch."""
        return tuple(self.digests)


def load(
    path: str | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Json | None = None,
) -> Loaded:
    """Read the configuration. Blocks: call it in a thread while serving.

    Raises:
        ConfigError: it cannot be used; holds every mistake that was found.
    """
    sources = read_sources(path, environ)
    layers = _all_layers(sources, environ, overrides)
    if not sources.complete:  # what is missing would be mistaken for what was left out
        raise ConfigError(sources.notes.mistakes, sources.notes.warnings)
    data, substitution = substitute(
        _without_nulls(merge(*(layer.data for layer in layers))), environ
    )
    checked = _Check(layers, _settled(data, substitution.missing))
    checked.missing(substitution.missing)
    settings = checked.settings()
    warnings = (*sources.notes.warnings, *checked.warnings)
    if mistakes := [*sources.notes.mistakes, *checked.mistakes]:
        raise ConfigError(mistakes, warnings)
    return Loaded(
        settings=settings,
        warnings=(*warnings, *_advice(settings, layers)),
        sources=tuple(layer.label for layer in layers),
        digests={**sources.files, **substitution.files},
    )


def _all_layers(
    sources: Sources, environ: Mapping[str, str], overrides: Json | None
) -> list[Layer]:
    below = merge(*(layer.data for layer in sources.layers))
    layers = list(sources.layers)
    if (variables := read_variables(environ, below, sources.notes)).data:
        layers.append(variables)
    if overrides:
        sources.notes.label = COMMAND_LINE
        layers.append(Layer(COMMAND_LINE, canonical(overrides, sources.notes)))
    return layers


def _without_nulls(value: Any) -> Any:
    """Null is the default: it resets what an earlier source has set, or removes a server."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _settled(data: Json, missing: Iterable[Missing]) -> Json:
    """The data as it is validated: what is missing where no text belongs is left out."""
    for lack in missing:
        shape = shape_at(lack.path)
        if _server_of(lack.path) and not (shape and shape.is_text):
            _remove(data, lack.path)
    return settle(data)


@dataclass(slots=True)
class _Check:
    """Validation of the merged data, which collects everything that is wrong with it."""

    layers: list[Layer]
    data: Json
    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)

    def missing(self, lacks: Iterable[Missing]) -> None:
        """Values that could not be found disable their server, or are mistakes."""
        for lack in lacks:
            entry = self._entry(lack.path)
            if entry is None:
                self._mistake(lack.path, lack.reason)
                continue
            if entry.get("disabled") is True:
                continue
            text = f"{spell(lack.path)}: {lack.reason}"
            entry["problem"] = f"{entry['problem']}; {text}" if "problem" in entry else text
            self.warnings.append(f"{text} (this server is disabled until then)")

    def _entry(self, path: Path) -> Json | None:
        """The entry of the MCP server that a path is inside of, if it is one."""
        server, servers = _server_of(path), self.data.get("mcp_servers")
        entry = servers.get(server) if isinstance(servers, dict) and server else None
        return entry if isinstance(entry, dict) else None

    def settings(self) -> Settings:
        """The settings; only meaningful when no mistakes were found."""
        settings = self._validated()
        for path, text in findings(settings, self.broken):
            self._mistake(self._as_written(path), text)
        return settings

    def _validated(self) -> Settings:
        """What is valid of the data: whatever is wrong is noted and left out, until the rest is."""
        while True:
            try:
                return Settings.model_validate(self.data)
            except ValidationError as exc:
                if not self._note_and_remove(exc):
                    return Settings()

    def _note_and_remove(self, error: ValidationError) -> bool:
        removed = False
        for detail in error.errors(include_url=False, include_input=False):
            path = self._as_written(detail["loc"])
            self._mistake(path, complaint({**detail, "loc": path}))
            self.broken.add(path)
            removed |= _remove(self.data, path[:-1] if detail["type"] == "missing" else path)
        return removed

    def _as_written(self, path: Path) -> Path:
        """A single inference server is an object: its path has no index."""
        single = isinstance(self.data.get("inference_server"), dict)
        if single and path[:2] == ("inference_server", 0):
            return ("inference_server", *path[2:])
        return path

    def _mistake(self, path: Path, text: str) -> None:
        line = f"{spell(path)}: {text}"
        origin = self._origin(path) or self._origin(path[:-1])
        self.mistakes.append(f"{origin}: {line}" if origin else line)

    def _origin(self, path: Path) -> str | None:
        found = (layer.origin_of(path) for layer in reversed(self.layers))
        return next((origin for origin in found if origin), None)


def _server_of(path: Path) -> str | None:
    """The MCP server that a path is inside of."""
    return str(path[1]) if len(path) > 2 and path[0] == "mcp_servers" else None


def _remove(data: Any, path: Path) -> bool:
    """Take out what is at that path; whether there was something."""
    *parents, last = path
    for step in parents:
        if not isinstance(data, dict | list):
            return False
        try:
            data = data[step]  # type: ignore[index]  # a step fits its container, or is caught
        except (KeyError, IndexError, TypeError):
            return False
    if isinstance(data, dict) and last in data:
        del data[last]
        return True
    if isinstance(data, list) and isinstance(last, int) and last < len(data):
        data.clear()  # the positions of the others would change
        return True
    return False


def _advice(settings: Settings, layers: list[Layer]) -> Iterable[str]:
    """What works, but is hardly meant."""
    if not any(layer.label != COMMAND_LINE for layer in layers):
        yield (
            f"there is no {DEFAULT_FILE} here, and no MCP_BRIDGE__… variable is set: "
            "nothing is configured (--config names a file)"
        )
    auth = settings.security.auth
    if auth.api_keys and not auth.enabled:
        yield "security.auth.api_keys: not asked for, because security.auth.enabled is false"
    for name, server in settings.mcp_servers.items():
        if server.timeout > server.max_timeout:
            yield (
                f"{spell(('mcp_servers', name, 'timeout'))}: more than max_timeout "
                f"({server.max_timeout:g} seconds), which ends the call first; "
                "some other clients count milliseconds here"
            )
    if settings.mcp_servers:
        yield from _unmatched(settings)


def _unmatched(settings: Settings) -> Iterable[str]:
    """Patterns for servers that are not there."""
    for path, patterns in _patterns(settings):
        for number, pattern in enumerate(patterns):
            named = _server_named(pattern)
            if named and named not in settings.mcp_servers:
                guess = did_you_mean(named, settings.mcp_servers)
                hint = f', did you mean "{guess}"?' if guess else ""
                yield f"{spell((*path, number))}: no MCP server has that name{hint}"


def _patterns(settings: Settings) -> Iterable[tuple[Path, Iterable[str]]]:
    """Every list of patterns `server:tool`."""
    for name, toolset in settings.toolsets.items():
        yield ("toolsets", name, "include"), toolset.include
        yield ("toolsets", name, "exclude"), toolset.exclude
    for number, key in enumerate(settings.security.auth.api_keys):
        yield ("security", "auth", "api_keys", number, "tools"), key.tools or ()


def _server_named(pattern: str) -> str | None:
    """The one server that a pattern is about, if it is about one."""
    server, colon, _ = pattern.strip().removeprefix("!").partition(":")
    one = colon and not any(mark in server for mark in "*?[")
    return server.strip() if one else None
