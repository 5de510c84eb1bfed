"""Clients that speak of `functions`, the API before tools: their calls go back in that shape (L2).

None of the bridge's tools are added for them: a request cannot hold both, and such a client could
not read a turn in which several tools were called.
"""

from collections.abc import Iterable, Iterator

from mcp_bridge.inference.splice import Run
from mcp_bridge.types import Json


def speaks_functions(body: Json) -> bool:
    """Whether a request brings `functions`, and no tools."""
    return bool(body.get("functions")) and not body.get("tools")


class FunctionsShape:
    """Answers as chat completions with `function_call`, which is one call."""

    def chunks(self, chunks: Iterable[Json | Run]) -> Iterator[Json | Run]:
        for chunk in chunks:
            yield chunk if isinstance(chunk, Run) else reshaped(chunk, "delta")

    def whole(self, completion: Json) -> Json:
        return reshaped(completion, "message")


FUNCTIONS = FunctionsShape()


def reshaped(answer: Json, key: str) -> Json:
    return {**answer, "choices": [as_function_call(choice, key) for choice in answer["choices"]]}


def as_function_call(choice: Json, key: str) -> Json:
    """The choice with its first call in the old shape; `key` is where it says something."""
    said = {name: value for name, value in choice[key].items() if name != "tool_calls"}
    for call in choice[key].get("tool_calls") or ():
        if call.get("index", 0) == 0:
            said.setdefault("function_call", call["function"])
    reason = choice.get("finish_reason")
    return {
        **choice,
        key: said,
        "finish_reason": "function_call" if reason == "tool_calls" else reason,
    }
