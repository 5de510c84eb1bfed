"""From `sampling/createMessage` to a chat request, and from its answer to the result. Pure.

The rules that the specification sets for the requests (2025-11-25, "Sampling", SEP-1577): every
tool use is answered in the next message, and tool results share their message with nothing else.
`includeContext` and `metadata` are ignored: the first is deprecated, the second is the provider's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import orjson

from mcp_bridge.agent.convert import blocks, read_block, readable
from mcp_bridge.agent.parts import content_of, parts_of, text_part
from mcp_bridge.config.settings import SchemaProfile
from mcp_bridge.inference.answer import Answer, ModelCall
from mcp_bridge.inference.schema import fit
from mcp_bridge.tools.arguments import BadArguments, parse
from mcp_bridge.tools.catalog import hashed, legal
from mcp_bridge.types import Json

MOST_STOPS = 4
"""OpenAI refuses more; we cut at the others ourselves."""

EXTRA = "mcp-bridge/extra"
"""Where a tool use carries what must come back to the model with it (Gemini's signatures)."""


class BadRequest(Exception):
    """The server's request breaks the rules; the message says which one."""


class BadAnswer(Exception):
    """The model's answer cannot be handed to the server."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a server asks of a model, checked."""

    messages: Sequence[Json]
    max_tokens: int
    system: str | None = None
    temperature: float | None = None
    stops: tuple[str, ...] = ()
    tools: tuple[Json, ...] = ()
    mode: str = "auto"
    names: Mapping[str, str] = field(default_factory=dict)
    """The name that the model sees for each tool: MCP allows more in a name than model APIs."""

    @classmethod
    def of(cls, params: Json) -> "Request":
        """Read the params of `sampling/createMessage`.

        Raises:
            BadRequest: they break the rules.
        """
        messages = params.get("messages")
        if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
            raise BadRequest("messages must be a list of messages")
        check_tool_results(messages)
        tools = tools_of(params.get("tools"))
        choice = params.get("toolChoice")
        system, temperature = params.get("systemPrompt"), params.get("temperature")
        return cls(
            messages,
            max_tokens_of(params),
            system if isinstance(system, str) and system else None,
            temperature if is_number(temperature) else None,
            tuple(s for s in params.get("stopSequences") or () if isinstance(s, str) and s),
            tools,
            str((choice.get("mode") if isinstance(choice, dict) else None) or "auto"),
            wire_names([tool["name"] for tool in tools]),
        )

    def name(self, tool: object) -> str:
        return self.names.get(str(tool)) or legal(str(tool))


def max_tokens_of(params: Json) -> int:
    value = params.get("maxTokens")
    if not is_number(value) or value < 1:
        raise BadRequest("maxTokens must be a number of 1 or more")
    return int(value)


def tools_of(value: object) -> tuple[Json, ...]:
    tools = value if isinstance(value, list) else []
    if not all(isinstance(tool, dict) and isinstance(tool.get("name"), str) for tool in tools):
        raise BadRequest("each of the tools must be an object with a name")
    return tuple(tools)


def wire_names(tools: Sequence[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for tool in tools:
        name = legal(tool)
        names[tool] = name if name not in names.values() else hashed(name, tool)
    return names


def check_tool_results(messages: Sequence[Json]) -> None:
    open_uses: set[object] = set()
    for message in messages:
        content = list(blocks(message.get("content")))
        results = [b.get("toolUseId") for b in content if b.get("type") == "tool_result"]
        if results and len(results) != len(content):
            raise BadRequest("tool results must not be mixed with other content in a message")
        if len(results) != len(open_uses) or set(results) != open_uses:
            raise BadRequest("every tool use must be answered by one result in the next message")
        open_uses = {b.get("id") for b in content if b.get("type") == "tool_use"}
    if open_uses:
        raise BadRequest("the last tool uses have no results")


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


# The question


def chat_body(
    request: Request, model: str, max_tokens: int, *, vision: bool, profile: SchemaProfile
) -> Json:
    """The chat request that puts the server's question to `model`."""
    messages: list[Json] = []
    if request.system is not None:
        messages.append({"role": "system", "content": request.system})
    for message in request.messages:
        messages += chat_messages(message, request, vision=vision)
    body: Json = {
        "model": model,
        "messages": messages,
        "max_tokens": max_tokens,
        "stream": False,
    }
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.stops:
        body["stop"] = list(request.stops[:MOST_STOPS])
    if request.tools:
        body["tools"] = [function(tool, request, profile) for tool in request.tools]
        body["tool_choice"] = request.mode
    return body


def chat_messages(message: Json, request: Request, *, vision: bool) -> list[Json]:
    content = list(blocks(message.get("content")))
    if message.get("role") == "assistant":
        return [said(content, request)]
    if any(block.get("type") == "tool_result" for block in content):
        return tool_messages(content, vision=vision)
    return [{"role": "user", "content": content_of(parts_of(content, vision=vision))}]


def said(content: Sequence[Json], request: Request) -> Json:
    """An assistant message. It cannot show images: they are named."""
    shown = [block for block in content if block.get("type") != "tool_use"]
    text = "\n".join(read_block(block, vision=False)[0] for block in shown)
    calls = [tool_call(b, request) for b in content if b.get("type") == "tool_use"]
    if not calls:
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": text or None, "tool_calls": calls}


def tool_call(block: Json, request: Request) -> Json:
    meta = block.get("_meta")
    extra = meta.get(EXTRA) if isinstance(meta, dict) else None
    arguments = orjson.dumps(block.get("input") or {}).decode()
    return {
        **(extra if isinstance(extra, dict) else {}),
        "id": str(block.get("id")),
        "type": "function",
        "function": {"name": request.name(block.get("name")), "arguments": arguments},
    }


def tool_messages(results: Sequence[Json], *, vision: bool) -> list[Json]:
    """One message for each result, and one after them for their images."""
    messages: list[Json] = []
    images: list[Json] = []
    for block in results:
        id, found = str(block.get("toolUseId")), readable(block, vision=vision)
        messages.append({"role": "tool", "tool_call_id": id, "content": found.text})
        if found.images:
            images += [text_part(f"Images returned by the call {id}:"), *found.images]
    return [*messages, {"role": "user", "content": images}] if images else messages


def function(tool: Json, request: Request, profile: SchemaProfile) -> Json:
    schema, description = tool.get("inputSchema"), tool.get("description")
    made: Json = {"name": request.name(tool["name"])}
    if isinstance(description, str) and description:
        made["description"] = description
    made["parameters"] = fit(schema if isinstance(schema, dict) else {"type": "object"}, profile)
    return {"type": "function", "function": made}


# The answer


def result_of(answer: Answer, request: Request, model: str) -> Json:
    """The `CreateMessageResult`; with tool uses its content is a list (SEP-1577).

    Raises:
        BadAnswer: the model called a tool with arguments that are not JSON.
    """
    calls = [call for call in answer.calls if call.complete and request.tools]
    text, stopped = stopped_at(text_of(answer), request.stops)
    content: Json | list[Json] = text_part(text)
    reason = stop_reason(answer, stopped or told_stop(answer, request.stops))
    if calls and request.mode != "none":
        shown = [text_part(text)] if text else []
        content, reason = [*shown, *(tool_use(call, request) for call in calls)], "toolUse"
    named = answer.envelope.get("model")
    return {
        "role": "assistant",
        "content": content,
        "model": named if isinstance(named, str) and named else model,
        "stopReason": reason,
    }


def text_of(answer: Answer) -> str:
    for field_name in ("content", "refusal"):
        value = answer.message.get(field_name)
        if isinstance(value, str) and value:
            return value
    return ""


def stopped_at(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop sequence in it, and whether there was one."""
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return (text[: min(found)], True) if found else (text, False)


def told_stop(answer: Answer, stops: Sequence[str]) -> bool:
    """Whether the server says that it stopped at a sequence (vLLM, SGLang)."""
    return any(answer.choice.get(key) in stops for key in ("stop_reason", "matched_stop"))


def stop_reason(answer: Answer, at_a_sequence: bool) -> str:
    cut = any(not call.complete for call in answer.calls)
    if at_a_sequence:
        return "stopSequence"
    if answer.finish_reason == "length" or cut:
        return "maxTokens"
    return "contentFilter" if answer.finish_reason == "content_filter" else "endTurn"


def tool_use(call: ModelCall, request: Request) -> Json:
    original = {seen: name for name, seen in request.names.items()}
    name = original.get(call.name, call.name)
    try:
        arguments = parse(call.arguments, {})
    except BadArguments as exc:
        raise BadAnswer(f"the model called {name} with arguments that are no JSON object") from exc
    use: Json = {"type": "tool_use", "id": call.id, "name": name, "input": arguments}
    return {**use, "_meta": {EXTRA: call.extra}} if call.extra else use
