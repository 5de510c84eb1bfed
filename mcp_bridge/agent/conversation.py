"""The state of one conversation while its rounds run: what is asked, and when it must end."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from mcp_bridge.agent.calls import Outcome
from mcp_bridge.agent.memory import calls_of
from mcp_bridge.config.settings import Limits, Progress, SchemaProfile
from mcp_bridge.exact import Encoded, encode, text_of
from mcp_bridge.inference.answer import Answer, ModelCall
from mcp_bridge.tools.arguments import BadArguments, parse
from mcp_bridge.tools.catalog import EMPTY_VIEW, Entry, View, hashed, legal
from mcp_bridge.tools.source import Answerer
from mcp_bridge.types import Caller, Json, frozen


@frozen
class Ask:
    """What a door wants answered.

    `body` is the chat request as the client sent it, less the bridge's own extension fields and
    with the model's plain name. `view` holds the tools to add (empty: none). `headers` go to the
    inference server as they are. `opening` are messages that the client does not know, from a
    prompt or resources. `depth` tells how deep in sampling this is asked. `elicits`: the user may
    be asked in the chat, so the loop runs in `Waiting`; else `answerer` answers what it can.
    """

    body: Json
    caller: Caller
    view: View = EMPTY_VIEW
    headers: dict[str, str] = field(default_factory=dict)
    progress: Progress = "off"
    door: str = "chat"
    answerer: Answerer | None = None
    meta: Json = field(default_factory=dict)
    opening: Sequence[Json] = ()
    depth: int = 0
    elicits: bool = False

    @property
    def model(self) -> str:
        return str(self.body.get("model"))

    @property
    def streamed(self) -> bool:
        return self.body.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True


LAST_WORDS_SECONDS = 60.0
"""How long the model may sum up once the time of a request is up."""


@dataclass(slots=True)
class Bounds:
    """How much is left of what one request may use (L8), and why it is over."""

    limits: Limits
    deadline: float
    rounds: int = 0
    calls: int = 0
    stopped: str | None = None
    late_at: float = field(init=False)
    """When a model that still speaks is cut. The last round has time of its own."""

    def __post_init__(self) -> None:
        self.late_at = self.deadline

    def seconds_left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    def stop(self, why: str) -> None:
        """Note that a bound is reached; the first one counts."""
        if self.stopped is None:
            self.stopped = why
            self.late_at = self.deadline + LAST_WORDS_SECONDS

    def check(self, usage: Json | None) -> None:
        """Note the first bound that has been reached."""
        limits = self.limits
        if self.rounds >= limits.max_rounds:
            self.stop("max_rounds")
        elif self.calls >= limits.max_calls:
            self.stop("max_calls")
        elif self.seconds_left() <= 0:
            self.stop("max_seconds")
        elif limits.max_tokens and tokens_in(usage or {}) >= limits.max_tokens:
            self.stop("max_tokens")


def tokens_in(usage: Json) -> int:
    """All tokens of a usage; some servers leave the total out."""
    counts = [usage.get(f"{kind}_tokens") for kind in ("total", "prompt", "completion")]
    total, *parts = [count if isinstance(count, int) else 0 for count in counts]
    return total or sum(parts)


class Conversation:
    """Messages, tools and bounds of one request, from its first round to its last."""

    def __init__(self, ask: Ask, messages: list[Json], limits: Limits) -> None:
        self.ask = ask
        self.given = len(messages)
        self.messages = messages
        self.client_tools = client_tools(ask.body)
        names = filter(None, map(function_name, self.client_tools))
        self.client_names = frozenset(names) | functions_in(ask.body)
        self.custom_names = frozenset(filter(None, map(custom_name, self.client_tools)))
        self.view = ask.view.renamed(self._free_name) if self._clash() else ask.view
        self.bounds = Bounds(limits, time.monotonic() + limits.max_seconds)
        self._failures: dict[bytes, int] = {}
        self._used_ids = ids_in(messages)

    def _clash(self) -> bool:
        return not self.client_names.isdisjoint(self.ask.view.by_name)

    def _free_name(self, name: str) -> str:
        """The client's tool keeps its name; ours of the same name is prefixed (L2)."""
        if name not in self.client_names:
            return name
        entry = self.ask.view.by_name[name]
        candidate = legal(f"{entry.source.name}__{name}")
        taken = self.client_names | self.ask.view.by_name.keys()
        return candidate if candidate not in taken else hashed(name, candidate)

    def offer(self, entry: Entry) -> None:
        """Add a tool from the next round on."""
        if self.view.find(entry.name) is None and entry.name not in self.client_names:
            self.view = self.view.plus(entry)

    # Asking

    def body(self, profile: SchemaProfile, without: frozenset[str]) -> Json:
        """The request of the next round."""
        body = {**self.ask.body, "messages": self.messages}
        ours = self.view.encoded(profile, without)
        tools = [*map(encode, self.client_tools), *([ours] if ours else ())]
        if tools:
            # As JSON already: ours cost no more than their bytes, however many they are.
            body["tools"] = Encoded(b"[%b]" % b",".join(tools))
        else:
            body.pop("tools", None)  # an empty list is refused by many (L9)
        self._set_choice(body, bool(tools))
        if body.get("stream") is True:
            options = body.get("stream_options")
            options = options if isinstance(options, dict) else {}
            body["stream_options"] = {**options, "include_usage": True}
        return body

    def _set_choice(self, body: Json, has_tools: bool) -> None:
        if not has_tools:
            if "tools" in self.ask.body:
                body.pop("tool_choice", None)
                body.pop("parallel_tool_calls", None)
        elif self.bounds.stopped:
            body["tool_choice"] = "none"
        elif self.bounds.rounds > 0 and "tool_choice" in body:
            # Forced in round one only, or it never ends (L9).
            body["tool_choice"] = unforced(body["tool_choice"])

    # Hearing

    def adopt(self, answer: Answer) -> list[ModelCall]:
        """The calls of an answer in order; ids of ours that were used before are made new."""
        calls: list[ModelCall] = []
        for call in answer.calls:
            if call.id in self._used_ids and call.name not in self.client_names:
                call = replace(call, id=f"call_{uuid.uuid4().hex[:24]}")
            self._used_ids.add(call.id)
            calls.append(call)
        return calls

    def note(self, outcome: Outcome) -> None:
        """Count failures: the same failing call again and again ends the loop (L7)."""
        if not outcome.readable.is_error:
            return
        key = f"{outcome.call.name}\0{outcome.call.arguments}".encode("utf-8", "surrogatepass")
        self._failures[key] = self._failures.get(key, 0) + 1
        if self._failures[key] >= self.bounds.limits.max_same_failures:
            self.bounds.stop("max_same_failures")

    @property
    def hidden(self) -> tuple[Json, ...]:
        """The messages of the rounds that the client does not see."""
        return tuple(self.messages[self.given :])


def client_tools(body: Json) -> list[Json]:
    tools = body.get("tools")
    return list(tools) if isinstance(tools, list) else []


def functions_in(body: Json) -> frozenset[str]:
    """The names in `functions`, which is what tools were called before."""
    functions = body.get("functions")
    if not isinstance(functions, list):
        return frozenset()
    names = [function.get("name") for function in functions if isinstance(function, dict)]
    return frozenset(name for name in names if isinstance(name, str))


def function_name(tool: Any) -> str | None:
    return name_in(tool, "function") or custom_name(tool)


def custom_name(tool: Any) -> str | None:
    return name_in(tool, "custom")


def name_in(tool: Any, kind: str) -> str | None:
    definition = tool.get(kind) if isinstance(tool, dict) else None
    name = definition.get("name") if isinstance(definition, dict) else None
    return name if isinstance(name, str) else None


def ids_in(messages: Sequence[Json]) -> set[str]:
    """The ids of the calls in a conversation."""
    given = (message for message in messages if "tool_calls" in message)
    return {str(call.get("id")) for message in given for call in calls_of(message)}


def unforced(choice: Any) -> Any:
    """A `tool_choice` that no longer makes the model call something."""
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools")
        return {**choice, "allowed_tools": {**(allowed or {}), "mode": "auto"}}
    return "auto" if choice == "required" or isinstance(choice, dict) else choice


def assistant_message(answer: Answer, calls: Sequence[ModelCall]) -> Json:
    """The model's turn as it goes back: every field, arguments always valid JSON (L6, L13)."""
    message = {k: v for k, v in answer.message.items() if k not in ("annotations", "audio")}
    message["content"] = message.get("content") or None
    message["tool_calls"] = [call_item(call, valid(call.arguments)) for call in calls]
    return message


def call_item(call: ModelCall, arguments: str) -> Json:
    """A call as an item of `tool_calls`."""
    if call.extra.get("type") == "custom":  # free text, which is never JSON
        text = {"name": call.name, "input": call.arguments}
        return {"id": call.id, "type": "custom", "custom": text, **rest_of(call)}
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function, **rest_of(call)}


def rest_of(call: ModelCall) -> Json:
    """Its fields beside those that every call has; Gemini's signature must come back."""
    return {key: value for key, value in call.extra.items() if key not in ("type", "custom")}


def valid(arguments: str) -> str:
    """The arguments if they are a JSON object, else an object that says what they were."""
    try:
        if isinstance(orjson.loads(arguments), dict):
            return arguments
    except orjson.JSONDecodeError:
        pass
    try:
        return text_of(parse(arguments, {}))  # what the tool was called with
    except BadArguments:
        return text_of({"invalid_arguments": arguments[:2000]})


def tool_message(outcome: Outcome) -> Json:
    return {
        "role": "tool",
        "tool_call_id": outcome.call.id,
        "content": outcome.readable.text,
    }


def images_message(outcomes: list[Outcome]) -> list[Json]:
    """Images of results as a user message after the tool messages: tools may not carry them."""
    parts: list[Json] = []
    for outcome in outcomes:
        if outcome.readable.images:
            text = f"Images returned by {outcome.call.name} ({outcome.call.id}):"
            parts += [{"type": "text", "text": text}, *outcome.readable.images]
    return [{"role": "user", "content": parts}] if parts else []
