"""All sources as one list, and the part of it that one caller sees.

A Catalog is an immutable snapshot: a request keeps the one that it began with. The names that
models and clients see are decided here, once (DESIGN 3, "Tool names the model sees"): legal in
`^[a-zA-Z0-9_-]{1,64}$`, routed by table and never by splitting, in a deterministic order.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from itertools import count
from types import MappingProxyType

from mcp_bridge.config.settings import PrefixPolicy, SchemaProfile
from mcp_bridge.exact import encode
from mcp_bridge.inference.schema import fit
from mcp_bridge.policy.access import Selection
from mcp_bridge.tools.source import Tool, ToolSource
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)

MAX_NAME = 64
ILLEGAL = re.compile(r"[^a-zA-Z0-9_-]")
SEPARATOR = re.compile(r"__|[.:/]")
CACHED_VIEWS = 256

Offered = tuple[SchemaProfile, frozenset[str]]
"""What of a view is offered: in which kind of schemas, and without which tools."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tool under the name that callers see. `source` is what answers its calls."""

    name: str
    tool: Tool
    source: ToolSource
    _fitted: dict[SchemaProfile, Json] = field(default_factory=dict, repr=False, compare=False)

    def parameters(self, profile: SchemaProfile) -> Json:
        """Its input schema as the inference server can compile it. Made once for all views."""
        made = self._fitted.get(profile)
        if made is None:
            made = self._fitted[profile] = fit(self.tool.input_schema, profile)
        return made


@dataclass(frozen=True)
class View:
    """The part of the catalog that one caller sees. Cached: one per selection and snapshot."""

    entries: tuple[Entry, ...]
    _definitions: dict[Offered, tuple[Json, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )
    _encoded: dict[Offered, bytes] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def by_name(self) -> Mapping[str, Entry]:
        return MappingProxyType({entry.name: entry for entry in self.entries})

    @cached_property
    def sources(self) -> tuple[ToolSource, ...]:
        return tuple({id(entry.source): entry.source for entry in self.entries}.values())

    def find(self, name: str) -> Entry | None:
        return self.by_name.get(name)

    def close_matches(self, name: str) -> list[str]:
        """Names that a model may have meant, the likeliest first (L7)."""
        wanted = name[: 2 * MAX_NAME].lower()
        bare = SEPARATOR.split(wanted)[-1]
        names = {entry.name.lower(): entry.name for entry in self.entries}
        exact = [e.name for e in self.entries if bare in (e.tool.name.lower(), e.name.lower())]
        close = [names[found] for found in get_close_matches(wanted, names, n=5, cutoff=0.5)]
        return list(dict.fromkeys(exact + close))[:5]

    def definitions(
        self, profile: SchemaProfile, without: frozenset[str] = frozenset()
    ) -> tuple[Json, ...]:
        """OpenAI `tools` objects in the schema that the inference server can compile.

        `without` names tools that it refused (quarantine). Made once; not to be changed.
        """
        key = self._offered(profile, without)
        made = self._definitions.get(key)
        if made is None:
            made = tuple(definition(e, profile) for e in self.entries if e.name not in key[1])
            self._definitions[key] = made
        return made

    def encoded(self, profile: SchemaProfile, without: frozenset[str] = frozenset()) -> bytes:
        """The same as JSON, ready to be put into a request: what stands between the brackets."""
        key = self._offered(profile, without)
        made = self._encoded.get(key)
        if made is None:
            made = b",".join(map(encode, self.definitions(profile, without)))
            self._encoded[key] = made
        return made

    def _offered(self, profile: SchemaProfile, without: frozenset[str]) -> Offered:
        return profile, frozenset(without & self.by_name.keys()) if without else without

    def renamed(self, name: Callable[[str], str]) -> "View":
        return View(tuple(replace(entry, name=name(entry.name)) for entry in self.entries))

    def plus(self, entry: Entry) -> "View":
        return View((*self.entries, entry))

    def joined(self, source: ToolSource) -> "View":
        """With the tools of one more source, which get other names where theirs are taken."""
        more = name_all([(source, source.tools)], "collision", taken=self.by_name)
        return View((*self.entries, *more))


EMPTY_VIEW = View(())


def definition(entry: Entry, profile: SchemaProfile) -> Json:
    function: Json = {"name": entry.name}
    title = entry.tool.definition.get("title")
    if description := entry.tool.description or title:
        function["description"] = str(description)
    function["parameters"] = entry.parameters(profile)
    return {"type": "function", "function": function}


class Catalog:
    """All tools of all sources at one moment."""

    def __init__(
        self, sources: Sequence[ToolSource] = (), prefix: PrefixPolicy = "collision"
    ) -> None:
        self._tools = tuple((source, source.tools) for source in sources)
        self._prefix = prefix
        self._entries: dict[PrefixPolicy, tuple[Entry, ...]] = {}
        self._views: dict[tuple[tuple[Selection, ...], PrefixPolicy], View] = {}
        self.entries = self.entries_for(prefix)

    @property
    def collisions(self) -> Mapping[str, tuple[str, ...]]:
        """Tool names that several sources have, with those sources in order."""
        owners: dict[str, dict[str, None]] = {}
        for source, tools in self._tools:
            for tool in tools:
                owners.setdefault(legal(tool.name), {})[source.name] = None
        return {name: tuple(found) for name, found in owners.items() if len(found) > 1}

    def entries_for(self, prefix: PrefixPolicy) -> tuple[Entry, ...]:
        made = self._entries.get(prefix)
        if made is None:
            made = self._entries[prefix] = tuple(name_all(self._tools, prefix))
        return made

    def view(
        self, selections: tuple[Selection, ...] = (), prefix: PrefixPolicy | None = None
    ) -> View:
        """What is left when every one of `selections` must allow a tool."""
        policy = prefix or self._prefix
        key = (selections, policy)
        view = self._views.get(key)
        if view is None:
            if len(self._views) >= CACHED_VIEWS:
                self._views.clear()
            view = self._views[key] = View(
                tuple(
                    entry
                    for entry in self.entries_for(policy)
                    if all(s.allows(entry.source.name, entry.tool.name) for s in selections)
                )
            )
        return view

    def find(self, name: str) -> Entry | None:
        return self.view().find(name)


def name_all(
    sources: Iterable[tuple[ToolSource, tuple[Tool, ...]]],
    prefix: PrefixPolicy,
    taken: Iterable[str] = (),
) -> list[Entry]:
    """Give every tool a legal name of its own: the first source keeps a bare name (S10, S11)."""
    owners: dict[str, str | None] = dict.fromkeys(taken)
    entries: list[Entry] = []
    for source, tools in sources:
        for tool in tools:
            if prefix == "never" and owners.get(legal(tool.name), source.name) != source.name:
                logger.warning(
                    "tool %r of %s is left out: another server has that name and the prefix "
                    "policy is 'never'",
                    tool.name,
                    source.name,
                )
                continue
            name = next(n for n in candidates(source.name, tool.name, prefix) if n not in owners)
            owners[name] = source.name
            entries.append(Entry(name, tool, source))
    return entries


def candidates(source: str, tool: str, prefix: PrefixPolicy) -> Iterator[str]:
    """Names for a tool, the best first; there is always one more."""
    bare, prefixed = legal(tool), legal(f"{source}__{legal(tool)}")
    if prefix != "always":
        yield bare
    if prefix != "never":
        yield prefixed
    for number in count():
        yield hashed(bare if prefix == "never" else prefixed, f"{source}\0{tool}\0{number}")


def legal(name: str) -> str:
    """A name that every model API accepts. What is cut off or unreadable leaves a hash."""
    clean = ILLEGAL.sub("_", name)
    if clean != name and not clean.strip("_-"):
        return hashed("tool", name)  # 天気 and 時間 must not both be __
    return clean if 0 < len(clean) <= MAX_NAME else hashed(clean, name)


def hashed(name: str, whole: str) -> str:
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: MAX_NAME - 9]}_{digest}"
