"""One bad tool schema must not break every request (P1).

Engines that compile schemas answer 400 for the whole request and name no tool. When that happens
to a request with our tools, the culprits are found once by halving, with tiny questions that
generate one token, and left out from then on; the log names them. A tool whose definition changes
gets a new chance. An error that no tool is to blame for costs one question, once.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence

import anyio

from mcp_bridge.errors import InferenceError
from mcp_bridge.exact import text_of
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)

SUSPECT_STATUS = frozenset({400, 422, 500})
MOST_QUESTIONS = 128
"""Enough for half a dozen culprits among a thousand tools."""
SIGNS = ("tool", "function", "schema", "grammar", "parameters", "$ref", "pattern", "json")

HARMLESS: Json = {
    "type": "function",
    "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}},
}

Accepts = Callable[[Sequence[Json]], Awaitable[bool]]
"""Whether the inference server takes a small request with these tools."""


class Quarantine:
    """Tools that an inference server refused, by model and definition.

    They are not offered. A call that comes out of the history all the same is run: the caller may
    use the tool, and its arguments are checked as ever.
    """

    def __init__(self) -> None:
        self._refused: dict[str, dict[str, set[bytes]]] = {}  # by model and tool name
        self._accepted: dict[str, bytes] = {}  # the tools that were last found to be fine
        self._toolless: set[str] = set()
        self._looking = anyio.Lock()

    def no_tools(self, model: str) -> None:
        """Note that a model takes no tools at all: it is answered without them."""
        if model not in self._toolless:
            logger.warning("model %s takes no tools: it is asked without them", model)
            self._toolless.add(model)

    def knows(self, model: str) -> bool:
        """Whether anything of this model's server is known, which costs nothing to ask."""
        return model in self._toolless or model in self._refused

    def names(self, model: str, tools: Sequence[Json]) -> frozenset[str]:
        """The names among `tools` that this model's server refused before."""
        if model in self._toolless:
            return frozenset(map(name_of, tools))
        refused = self._refused.get(model)
        if not refused:
            return frozenset()
        suspects = [tool for tool in tools if name_of(tool) in refused]
        return frozenset(name_of(t) for t in suspects if digest(t) in refused[name_of(t)])

    async def find(self, model: str, tools: Sequence[Json], accepts: Accepts) -> bool:
        """Look for the tools to blame; True when there were some and they are now left out."""
        async with self._looking:
            if self.names(model, tools):
                return True  # another request has found some meanwhile
            culprits = await self._culprits(model, tools, accepts)
        for tool in culprits:
            logger.warning(
                "tool %s is left out for model %s: the inference server refuses its schema",
                name_of(tool),
                model,
            )
        return bool(culprits)

    async def _culprits(
        self, model: str, tools: Sequence[Json], accepts: Accepts
    ) -> Sequence[Json]:
        together = digest(list(tools))
        if self._accepted.get(model) == together:
            return ()
        if await accepts(tools):
            self._accepted[model] = together
            return ()  # the tools are fine: something else is wrong with the request
        if not await accepts(()) or not await accepts((HARMLESS,)):
            return ()  # it refuses everything, or every tool: its own message says why
        culprits = await Questions(accepts).culprits(list(tools))
        for tool in culprits:
            known = self._refused.setdefault(model, {}).setdefault(name_of(tool), set())
            known.add(digest(tool))
        return culprits


class Questions:
    """Halving with a bound on how often the server is asked."""

    def __init__(self, accepts: Accepts) -> None:
        self._accepts = accepts
        self._asked = 0

    async def culprits(self, tools: list[Json]) -> list[Json]:
        """The refused ones among `tools`, which are known to be refused together."""
        if len(tools) <= 1 or self._asked >= MOST_QUESTIONS:
            return tools
        half = len(tools) // 2
        found: list[Json] = []
        for part in (tools[:half], tools[half:]):
            self._asked += 1
            if not await self._accepts(part):
                found += await self.culprits(part)
        return found


def may_be_a_tool(exc: InferenceError) -> bool:
    """Whether an error can be about a tool's schema, so that asking again is worth it."""
    said = f"{exc.message} {exc.upstream}".lower()
    return exc.status in SUSPECT_STATUS and any(sign in said for sign in SIGNS)


def takes_no_tools(exc: InferenceError) -> bool:
    """Ollama's words for a model without tool support."""
    return exc.status in SUSPECT_STATUS and "does not support tools" in exc.message.lower()


def probe(body: Json, tools: Sequence[Json]) -> Json:
    """A small request that makes the server compile `tools` and generate next to nothing."""
    question: Json = {
        "model": body.get("model"),
        "messages": [{"role": "user", "content": "hi"}],
        # Some models know only the one, some servers only the other.
        "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens": 1,
        "stream": False,
    }
    if tools:
        question["tools"] = list(tools)
    return question


def name_of(tool: Json) -> str:
    return str(tool["function"]["name"])


def digest(value: Json | list[Json]) -> bytes:
    return hashlib.sha256(text_of(value).encode()).digest()
