"""The scripted model behind OpenAI's interface: `/v1/models` and `/v1/chat/completions`.

It stands in where the demo finds no inference server. It is no language model, says so in its
answers, and really calls the tools that it is offered.
"""

import json
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from mcp_bridge.demo.rules import respond
from mcp_bridge.errors import BridgeError, RequestError
from mcp_bridge.types import Json

MODEL = "scripted-demo"
OWNER = "mcp_bridge"
ENTRY: Json = {"id": MODEL, "object": "model", "created": 0, "owned_by": OWNER}


def scripted_model() -> Starlette:
    """The application. It holds no state."""
    routes = [
        Route("/v1/models", list_models),
        Route("/v1/chat/completions", complete, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {BridgeError: tell_error, HTTPException: tell_no_route}
    return Starlette(routes=routes, exception_handlers=handlers)


async def list_models(request: Request) -> Response:
    return as_json({"object": "list", "data": [ENTRY]})


async def complete(request: Request) -> Response:
    body = checked(await request.body())
    said = Said.about(body)
    if body.get("stream") is not True:
        return as_json(said.whole())
    options = body.get("stream_options")
    with_usage = isinstance(options, dict) and options.get("include_usage") is True
    return StreamingResponse(events(said.chunks(with_usage)), media_type="text/event-stream")


async def tell_error(request: Request, error: BridgeError) -> Response:
    return as_json(error.body(), error.status)


async def tell_no_route(request: Request, error: HTTPException) -> Response:
    what = f"{request.method} {request.url.path}"
    refused = RequestError(f"{what}: {error.detail}", status=error.status_code)
    return await tell_error(request, refused)


def as_json(value: Json, status: int = 200) -> Response:
    """Written in ASCII, so that half a character in a request does no harm in the answer."""
    return Response(json.dumps(value), status, media_type="application/json")


def checked(content: bytes) -> Json:
    """The body of a request that can be answered.

    Raises:
        RequestError: it cannot.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"the body is no JSON: {exc}") from exc
    body: Json = value if isinstance(value, dict) else {}
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise RequestError("messages must be a list of objects", param="messages")
    if body.get("model") != MODEL:
        raise RequestError(
            f"there is no model {str(body.get('model'))[:100]!r}, only {MODEL}",
            param="model",
            code="model_not_found",
            status=404,
        )
    return body


@dataclass(frozen=True, slots=True)
class Said:
    """An answer in OpenAI's shapes, whole and in chunks."""

    head: Json
    text: str
    calls: tuple[Json, ...]
    usage: Json

    @classmethod
    def about(cls, body: Json) -> "Said":
        response = respond(body)
        calls = tuple(
            {
                "id": f"call_{uuid.uuid4().hex[:24]}",
                "type": "function",
                "function": {"name": call.tool, "arguments": json.dumps(call.arguments)},
            }
            for call in response.calls
        )
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": MODEL}
        return cls(head, response.text, calls, usage(body, response.text, calls))

    @property
    def finish_reason(self) -> str:
        return "tool_calls" if self.calls else "stop"

    def whole(self) -> Json:
        message: Json = {"role": "assistant", "content": self.text or None}
        if self.calls:
            message["tool_calls"] = list(self.calls)
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        envelope = {**self.head, "object": "chat.completion"}
        return {**envelope, "choices": [choice], "usage": self.usage}

    def chunks(self, with_usage: bool) -> Iterator[Json]:
        yield self._chunk({"role": "assistant", "content": None if self.calls else ""})
        for piece in pieces(self.text):
            yield self._chunk({"content": piece})
        for index, call in enumerate(self.calls):
            function = call["function"]
            start = {**call, "index": index, "function": {**function, "arguments": ""}}
            yield self._chunk({"tool_calls": [start]})
            for piece in pieces(function["arguments"]):
                more = {"index": index, "function": {"arguments": piece}}
                yield self._chunk({"tool_calls": [more]})
        yield self._chunk({}, self.finish_reason)
        if with_usage:
            yield {**self._chunk({}), "choices": [], "usage": self.usage}

    def _chunk(self, delta: Json, finish_reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice]}


def pieces(text: str) -> Iterator[str]:
    """The text word by word."""
    start = 0
    while start < len(text):
        end = text.find(" ", start) + 1 or len(text)
        yield text[start:end]
        start = end


def usage(body: Json, text: str, calls: tuple[Json, ...]) -> Json:
    """Tokens, by the rule of thumb of four characters each: there is no tokeniser here."""
    asked = len(json.dumps([body["messages"], body.get("tools")])) // 4
    answered = len(text + (json.dumps(calls) if calls else "")) // 4
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
    }


async def events(chunks: Iterator[Json]) -> AsyncGenerator[bytes]:
    for chunk in chunks:
        yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"
