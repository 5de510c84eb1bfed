"""Who came in, and what they see of it all: their part of every server, under the names they see.

Names stay as they are wherever they can (S10). Only where two servers have the same one, the later
server's is changed, for everybody alike: a tool or a prompt becomes `server__name`, a resource
`mcp-bridge://server/uri`. Calls are routed by these tables and never by splitting a name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from fnmatch import fnmatchcase
from functools import cached_property
from urllib.parse import quote

from mcp.shared.inbound import x_mcp_header_map
from mcp.shared.uri_template import InvalidUriTemplate, UriTemplate

from mcp_bridge.bridge import Bridge
from mcp_bridge.config.settings import PrefixPolicy, Settings
from mcp_bridge.mcp_client.connection import Connection
from mcp_bridge.mcp_server.messages import Written
from mcp_bridge.policy.access import Selection, named, of_toolset, selections_of
from mcp_bridge.tools.catalog import Entry, View, legal
from mcp_bridge.types import Caller, Json, frozen

SCHEME = "mcp-bridge"
CACHED_OFFERS = 256
CACHED_VISITS = 4096

PAGE = 1000
"""Items of a list in one answer: more than most clients ever have, for some never ask for more."""


@frozen
class Visit:
    """Who came in through which URL."""

    caller: Caller
    toolset: str | None = None


VISIT: ContextVar[Visit] = ContextVar("mcp_bridge_visit")
"""The visit that the running code belongs to. The SDK carries it into every handler (sdk.py)."""


@frozen
class Place:
    """Where something is: a prompt, a resource or a template of one server, by its own name."""

    connection: Connection
    own: str
    definition: Json


class Offer:
    """Everything that one visit is offered at one moment. Never changes.

    `whole` names the servers of which nothing is kept from the visit.
    """

    def __init__(
        self,
        view: View,
        connections: Sequence[Connection],
        prompts: Mapping[str, Place],
        resources: Mapping[str, Place],
        templates: Mapping[str, Place],
        whole: frozenset[str],
    ) -> None:
        self._view = view
        self.connections = tuple(connections)
        self.whole = whole
        self.tools = {shown_name(entry): entry for entry in view.entries}
        self.prompts = prompts
        self.resources = resources
        self.templates = templates
        self.pages: dict[tuple[str, bool, int], Written] = {}
        """Pages of lists by their method, whether the new era gets them so, and their start."""

        self._with_headers: dict[str, Json | None] = {}

    def starts(self, method: str) -> range:
        """Where the pages of a list begin; an empty list has one, too."""
        return range(0, max(1, len(self.lists[method])), PAGE)

    def schema_with_headers(self, name: str) -> Json | None:
        """The schema of a tool of which arguments are repeated in headers (`x-mcp-header`)."""
        if name not in self._with_headers and (entry := self.tool(name)) is not None:
            schema = entry.tool.input_schema
            self._with_headers[name] = schema if x_mcp_header_map(schema) else None
        return self._with_headers.get(name)

    @cached_property
    def lists(self) -> Mapping[str, tuple[Json, ...]]:
        """What each list method answers, made once."""
        tools = (renamed(e.tool.definition, "name", name) for name, e in self.tools.items())
        return {
            "tools/list": tuple(tools),
            "prompts/list": _definitions(self.prompts, "name"),
            "resources/list": _definitions(self.resources, "uri"),
            "resources/templates/list": _definitions(self.templates, "uriTemplate"),
        }

    @cached_property
    def moved(self) -> Mapping[tuple[str, str], str]:
        """The URIs that are shown under another one, by server and their own."""
        return {
            (place.connection.name, place.own): shown
            for shown, place in self.resources.items()
            if shown != place.own
        }

    def tool(self, name: str) -> Entry | None:
        """The tool that is shown, or known to chat clients, under this name."""
        return self.tools.get(name) or self._view.find(name)

    def close_matches(self, name: str) -> list[str]:
        return self._view.close_matches(name)

    def places(self, uri: str) -> list[Place]:
        """Where a resource may be read, the likeliest place first: it need not be in a list."""
        if found := self.resources.get(uri) or self.templates.get(uri):
            return [found]
        for connection in self.connections:
            if uri.startswith(prefix := moved_uri(connection.name, "")):
                return [Place(connection, uri.removeprefix(prefix), {})]
        for template, place in self._parsed:
            if template.match(uri) is not None:
                return [Place(place.connection, uri, place.definition)]
        return [Place(c, uri, {}) for c in self.connections if "resources" in c.capabilities]

    @cached_property
    def _parsed(self) -> list[tuple[UriTemplate, Place]]:
        parsed: list[tuple[UriTemplate, Place]] = []
        for shown, place in self.templates.items():
            try:
                if shown == place.own:
                    parsed.append((UriTemplate.parse(shown), place))
            except InvalidUriTemplate:
                continue  # its server reads it by its own rules; we only cannot match it
        return parsed


class Offers:
    """Makes offers, and keeps them until something changes."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._made: dict[tuple[tuple[Selection, ...], PrefixPolicy], Offer] = {}
        self._known: dict[Visit, Offer] = {}
        self._settings = bridge.settings

    def forget(self) -> None:
        """Something has changed."""
        self._made.clear()
        self._known.clear()

    def of(self, visit: Visit) -> Offer:
        """What the visit is offered now.

        Raises:
            RequestError: 404, its toolset is gone.
        """
        if self._settings is not self._bridge.settings:
            self._settings = self._bridge.settings
            self.forget()
        offer = self._known.get(visit)
        if offer is None:
            if len(self._known) >= CACHED_VISITS:
                self._known.clear()
            offer = self._known[visit] = self._find(visit)
        return offer

    def _find(self, visit: Visit) -> Offer:
        key = (_selections(visit, self._settings), _prefix(visit, self._settings))
        offer = self._made.get(key)
        if offer is None:
            if len(self._made) >= CACHED_OFFERS:
                self._made.clear()
            offer = self._made[key] = self._make(*key)
        return offer

    def _make(self, selections: tuple[Selection, ...], prefix: PrefixPolicy) -> Offer:
        servers = tuple(self._bridge.connections.values())
        seen = {c.name for c in servers if all(s.allows_server(c.name) for s in selections)}

        def table(items: Callable[[Connection], Sequence[Json]], key: str) -> dict[str, Place]:
            places = [Place(c, item[key], item) for c in servers for item in items(c)]
            found = name_all(places, prefix, moved_name if key == "name" else moved_uri)
            return {name: p for name, p in found.items() if p.connection.name in seen}

        return Offer(
            self._bridge.catalog.view(selections, prefix),
            [c for c in servers if c.name in seen],
            table(lambda c: c.prompts, "name"),
            table(lambda c: c.resources, "uri"),
            table(lambda c: c.resource_templates, "uriTemplate"),
            frozenset(name for name in seen if all(allows_all(s, name) for s in selections)),
        )


def allows_all(selection: Selection, server: str) -> bool:
    """Whether nothing of a server is left out."""
    taken = any(fnmatchcase(server, pattern.server) for pattern in selection.exclude)
    return not taken and selection.allows(server, "*")


def _selections(visit: Visit, settings: Settings) -> tuple[Selection, ...]:
    chosen = selections_of(visit.caller, settings.toolsets)
    if visit.toolset is None:
        return chosen
    return (*chosen, of_toolset(named(visit.toolset, settings.toolsets)))


def _prefix(visit: Visit, settings: Settings) -> PrefixPolicy:
    """A toolset's own policy, where it has one; else the general one."""
    for name in (visit.toolset, visit.caller.toolset):
        toolset = settings.toolsets.get(name) if name is not None else None
        if toolset is not None and toolset.prefix != "collision":
            return toolset.prefix
    return settings.tools.prefix


def name_all(
    places: Iterable[Place], prefix: PrefixPolicy, moved: Callable[[str, str], str]
) -> dict[str, Place]:
    """Give each a name of its own; the first server keeps the bare one. No name left: left out."""
    found: dict[str, Place] = {}
    for place in places:
        other = moved(place.connection.name, place.own)
        wanted = {"always": [other], "never": [place.own], "collision": [place.own, other]}[prefix]
        name = next((name for name in wanted if name not in found), None)
        if name is not None:
            found[name] = place
    return found


def moved_name(server: str, name: str) -> str:
    return f"{server}__{name}"


def moved_uri(server: str, uri: str) -> str:
    return f"{SCHEME}://{quote(server, safe='')}/{uri}"


def shown_name(entry: Entry) -> str:
    """A tool's own name, unless another has it: models need legal names, MCP clients do not."""
    return entry.tool.name if entry.name == legal(entry.tool.name) else entry.name


def renamed(definition: Json, key: str, name: str) -> Json:
    return definition if definition.get(key) == name else {**definition, key: name}


def _definitions(places: Mapping[str, Place], key: str) -> tuple[Json, ...]:
    return tuple(renamed(place.definition, key, name) for name, place in places.items())
