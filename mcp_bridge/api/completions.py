"""`POST /v1/completions`: forwarded, or answered by the loop when tools are asked for.

Nothing is added to a legacy completion unless the request names a toolset or tools itself (issue 2,
section 6): then its prompt is the user's message of a conversation, and the answer is its text.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from starlette.types import Receive, Scope, Send

from mcp_bridge.api.body import (
    check_announced,
    check_chat,
    check_flag,
    check_model,
    parse_object,
    read_body,
    wrong,
)
from mcp_bridge.api.chat import Arrival, answer
from mcp_bridge.api.forward import Forwarding
from mcp_bridge.api.selection import choose
from mcp_bridge.bridge import Bridge
from mcp_bridge.errors import RequestError
from mcp_bridge.exact import encode
from mcp_bridge.inference.splice import Run, each_of
from mcp_bridge.types import Json

ALONE = ("suffix", "echo", "logprobs", "best_of")
"""What a conversation with tools cannot do."""


class CompletionsEndpoint:
    """Serves legacy completions."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        bridge: Bridge = scope["app"].state.bridge
        arrival = Arrival.of(scope, bridge)
        limit = bridge.settings.limits.max_request_bytes
        check_announced(arrival.headers, limit)
        raw = await read_body(receive, limit)
        body = parse_object(raw)
        check_model(body)
        check_flag(body, "stream")
        choice = choose(body, arrival.caller, arrival.headers, arrival.toolset, bridge.settings)
        has_tools = bridge.catalog.view(choice.selections, choice.prefix).entries
        if choice.asked and (has_tools or choice.strangers):
            asked = conversation(choice.body)
            check_chat(asked)
            await answer(bridge, arrival, replace(choice, body=asked), TEXT, receive, send)
            return
        sent = raw if choice.body == body else encode(choice.body)
        forwarding = Forwarding(
            bridge.inference, scope, "completions", arrival.headers, choice.body["model"]
        )
        await forwarding.run(sent, receive, send)


def conversation(body: Json) -> Json:
    """The chat request that a legacy completion with tools stands for.

    Raises:
        RequestError: 400, it asks for what a conversation cannot do.
    """
    for name in ALONE:
        if body.get(name):
            raise RequestError(
                f"{name} cannot be combined with tools: leave it out, or ask without a toolset",
                param=name,
                code="unsupported_value",
            )
    rest = {k: v for k, v in body.items() if k != "prompt" and k not in ALONE}
    return {**rest, "messages": [{"role": "user", "content": prompt_of(body)}]}


def prompt_of(body: Json) -> str:
    """The prompt, which must be one text."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise wrong("prompt", "one text when tools are asked for")
    return prompt


class TextShape:
    """Answers as legacy completions: only the text is left."""

    def chunks(self, chunks: Iterable[Json | Run]) -> Iterator[Json]:
        for chunk in each_of(chunks):
            choices = [text_of(c, c.get("delta") or {}) for c in chunk["choices"]]
            if choices and not any(c["text"] or c["finish_reason"] for c in choices):
                continue
            yield {**head(chunk), "choices": choices, **usage(chunk)}

    def whole(self, completion: Json) -> Json:
        choices = [text_of(c, c["message"]) for c in completion["choices"]]
        return {**head(completion), "choices": choices, **usage(completion)}


TEXT = TextShape()


def head(answer: Json) -> Json:
    return {
        "id": answer["id"],
        "object": "text_completion",
        "created": answer["created"],
        "model": answer["model"],
    }


def text_of(choice: Json, said: Json) -> Json:
    return {
        "index": choice.get("index", 0),
        "text": said.get("content") or "",
        "logprobs": None,
        "finish_reason": choice.get("finish_reason"),
    }


def usage(answer: Json) -> Json:
    return {"usage": answer["usage"]} if "usage" in answer else {}
