"""What a request says about tools in words: names of toolsets and patterns (`research, !web:*`)."""

from collections.abc import Iterable, Mapping, Sequence

from mcp_bridge.config.settings import PrefixPolicy, Settings, Toolset
from mcp_bridge.errors import RequestError
from mcp_bridge.policy.access import (
    NOTHING,
    Selection,
    named,
    of_toolset,
    selection_of_words,
)
from mcp_bridge.types import Caller

HEADER = "X-MCP-Toolset"
NO_TOOLS = "none"
MOST_PATTERNS = 256
LONGEST_PATTERN = 256

Toolsets = Mapping[str, Toolset]


def toolsets_for(caller: Caller, settings: Settings) -> Toolsets:
    """The toolsets that a caller may name: for one that is bound to a toolset there is no other."""
    if caller.toolset is None:
        return settings.toolsets
    return {name: found for name, found in settings.toolsets.items() if name == caller.toolset}


def of_name(name: str, sets: Toolsets) -> Selection:
    """The toolset of that name, or `none`.

    Raises:
        RequestError: 404, there is none.
    """
    if name == NO_TOOLS and name not in sets:
        return NOTHING
    return of_toolset(named(name, sets))


def of_words(words: Sequence[str], sets: Toolsets) -> tuple[Selection, PrefixPolicy | None]:
    """What toolsets and patterns, or the one word `none`, select, and how tools are named then.

    Raises:
        RequestError: 404, a word is neither a pattern nor the name of a toolset.
    """
    if list(words) == [NO_TOOLS]:
        return of_name(NO_TOOLS, sets), None
    prefix = prefix_in(sets, words[0]) if len(words) == 1 else None
    return selection_of_words(words, sets), prefix


def words_in(values: Iterable[str]) -> list[str]:
    """The words in the header `X-MCP-Toolset`, which may have been sent several times.

    Raises:
        RequestError: 400, there are too many.
    """
    words = (word.strip() for value in values for word in value.split(","))
    return limited([word for word in words if word], HEADER)


def limited(words: list[str], param: str) -> list[str]:
    """The words, unless matching them would take long."""
    if len(words) > MOST_PATTERNS or any(len(word) > LONGEST_PATTERN for word in words):
        raise RequestError(
            f"{param}: at most {MOST_PATTERNS} names or patterns, of {LONGEST_PATTERN} characters",
            param=param,
        )
    return words


def prefix_of(name: str | None, settings: Settings) -> PrefixPolicy | None:
    """The policy that a toolset brings, None when it leaves that to the general setting."""
    return prefix_in(settings.toolsets, name)


def prefix_in(sets: Toolsets, name: str | None) -> PrefixPolicy | None:
    toolset = sets.get(name) if name else None
    return toolset.prefix if toolset is not None and toolset.prefix != "collision" else None
