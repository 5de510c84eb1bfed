"""Who sees which tools: one grammar, used wherever tools are listed, called or offered (X3).

    server:tool      allowed, `*` and `?` in either part (`files:*`, `*:read_*`)
    !server:tool     taken away again, and always stronger
    tool             short for `*:tool`

A list of patterns without a positive one starts from everything; an empty list is nothing. A part
that is left empty (`files:`, `!`) is a slip: it allows nothing, and takes away everything it can.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache

from mcp_bridge.config.settings import Toolset
from mcp_bridge.errors import RequestError
from mcp_bridge.types import Caller, frozen


@lru_cache(maxsize=8192)
def glob(text: str) -> Callable[[str], object]:
    """What matches a glob. fnmatch's own cache is too small for long lists of patterns."""
    if not any(mark in text for mark in "*?["):
        return text.__eq__
    return re.compile(translate(text)).match


def literal(text: str) -> str:
    """A glob that matches exactly this text."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


@frozen
class Pattern:
    """One part of a selection, for instance `server:tool`."""

    server: str
    tool: str

    def allows(self, server: str, tool: str) -> bool:
        return bool(glob(self.server)(server) and glob(self.tool)(tool))

    def allows_server(self, server: str) -> bool:
        return bool(self.tool and glob(self.server)(server))


@frozen
class Selection:
    """A part of the catalog: what any of `include` allows, less what is excluded."""

    include: "tuple[Pattern | Selection, ...]"
    exclude: tuple[Pattern, ...]

    def allows(self, server: str, tool: str) -> bool:
        return any(part.allows(server, tool) for part in self.include) and not any(
            pattern.allows(server, tool) for pattern in self.exclude
        )

    def allows_server(self, server: str) -> bool:
        """Whether anything of this server can be seen: its prompts and resources go with it."""
        return any(part.allows_server(server) for part in self.include) and not any(
            pattern.allows_server(server) and pattern.tool == "*" for pattern in self.exclude
        )


EVERY = Pattern("*", "*")
NOTHING = Selection((), ())


def parse_pattern(text: str, empty: str = "") -> Pattern:
    """`empty` stands for a part that is left empty; by default it matches nothing."""
    server, colon, tool = (part.strip() for part in text.partition(":"))
    if not colon:
        server, tool = "*", server
    return Pattern(server or empty, tool or empty)


def parse_exclusion(text: str) -> Pattern:
    return parse_pattern(text.removeprefix("!"), empty="*")


def parse_selection(patterns: Iterable[str]) -> Selection:
    """Turn a list of patterns into a selection; see the grammar on top of this file."""
    return _parsed(tuple(patterns))


@lru_cache(maxsize=1024)  # those of a key are the same with each of its requests
def _parsed(patterns: tuple[str, ...]) -> Selection:
    texts = [text for text in (p.strip() for p in patterns) if text]
    if not texts:
        return NOTHING
    exclude = tuple(parse_exclusion(text) for text in texts if text.startswith("!"))
    include = tuple(parse_pattern(text) for text in texts if not text.startswith("!"))
    return Selection(include or (EVERY,), exclude)


def of_toolset(toolset: Toolset) -> Selection:
    chosen = parse_selection(toolset.include)
    taken = tuple(parse_exclusion(text) for text in toolset.exclude if text.strip())
    return Selection(chosen.include, chosen.exclude + taken)


def is_pattern(text: str) -> bool:
    """Whether a word in a request is a pattern, and not the name of a toolset."""
    return any(mark in text for mark in ":*?!")


def selection_of_words(words: Sequence[str], toolsets: Mapping[str, Toolset]) -> Selection:
    """What a header such as `X-MCP-Toolset: research, !web:*` selects: toolsets and patterns.

    Several toolsets are all of their tools together; what `!` takes away is gone from each.

    Raises:
        RequestError: 404, a word is neither a pattern nor the name of a toolset.
    """
    include = tuple(
        parse_pattern(word) if is_pattern(word) else of_toolset(named(word, toolsets))
        for word in words
        if not word.startswith("!")
    )
    exclude = tuple(parse_exclusion(word) for word in words if word.startswith("!"))
    return Selection(include or (EVERY,), exclude) if words else NOTHING


def named(name: str, toolsets: Mapping[str, Toolset]) -> Toolset:
    """The toolset of that name.

    Raises:
        RequestError: 404, there is none.
    """
    found = toolsets.get(name)
    if found is None:
        raise RequestError(
            f"there is no toolset {name!r} for you: ask the operator, or use patterns "
            "such as 'server:*'",
            code="toolset_not_found",
            param="toolset",
            status=404,
        )
    return found


def selections_of(caller: Caller, toolsets: Mapping[str, Toolset]) -> tuple[Selection, ...]:
    """What the caller's key allows: every one of these must allow a tool.

    Raises:
        RequestError: 404, the toolset that the key is bound to is gone.
    """
    chosen: list[Selection] = []
    if caller.tools is not None:
        chosen.append(parse_selection(caller.tools))
    if caller.toolset is not None:
        chosen.append(of_toolset(named(caller.toolset, toolsets)))
    return tuple(chosen)
