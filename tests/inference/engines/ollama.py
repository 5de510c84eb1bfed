"""Ollama's /v1 (openai/openai.go, middleware/openai.go; ollama 7881, 7963, 15457, 15497)."""

from typing import Any

from mcp_bridge.types import Json
from tests.inference.engines.fixture import (
    DONE,
    Call,
    Expected,
    ExpectedError,
    Fixture,
    Refusal,
    calling,
    sse,
    usage,
)


def chunk(finish: str | None = None, **delta: Any) -> Json:
    """The role is in every chunk, and content beside calls."""
    said = {"role": "assistant", "content": "", **delta}
    return {
        "id": "chatcmpl-548",
        "object": "chat.completion.chunk",
        "created": 1763918000,
        "model": "qwen3:8b",
        "system_fingerprint": "fp_ollama",
        "choices": [{"index": 0, "delta": said, "finish_reason": finish}],
    }


def whole(finish: str, **message: Any) -> Json:
    said = {"role": "assistant", "content": "", **message}
    return {
        "id": "chatcmpl-91",
        "object": "chat.completion",
        "created": 1763918001,
        "model": "qwen3:8b",
        "system_fingerprint": "fp_ollama",
        "choices": [{"index": 0, "message": said, "finish_reason": finish}],
        "usage": usage(40, 12),
    }


COUNTED = {
    "id": "chatcmpl-548",
    "object": "chat.completion.chunk",
    "created": 1763918000,
    "model": "qwen3:8b",
    "system_fingerprint": "fp_ollama",
    "choices": [],
    "usage": usage(40, 12),
}
PARIS = calling(0, "call_9v0xgzq1", "weather", '{"city":"Paris"}')
ROME = calling(1, "call_p2m3n4o5", "weather", '{"city":"Rome"}')
TWO = (
    Call("call_9v0xgzq1", "weather", '{"city":"Paris"}'),
    Call("call_p2m3n4o5", "weather", '{"city":"Rome"}'),
)

new = Fixture(
    "Ollama, whole calls in one chunk, after reasoning",
    sse(
        chunk(reasoning="Two cities"),
        chunk(reasoning="."),
        chunk(tool_calls=[PARIS, ROME]),
        chunk("tool_calls"),
        COUNTED,
        DONE,
    ),
    whole("tool_calls", reasoning="Two cities.", tool_calls=[PARIS, ROME]),
    Expected(
        fields={"reasoning": "Two cities."},
        calls=TWO,
        finish_reason="tool_calls",
        usage=usage(40, 12),
    ),
)

old = Fixture(
    "Ollama of old, no index, and stop after calls",
    sse(
        chunk(tool_calls=[calling(None, "call_9v0xgzq1", "weather", '{"city":"Paris"}')]),
        chunk(tool_calls=[calling(None, "call_p2m3n4o5", "weather", '{"city":"Rome"}')]),
        chunk("stop"),
        DONE,
    ),
    whole("stop", tool_calls=[PARIS, ROME]),
    Expected(calls=TWO, whole={"usage": usage(40, 12)}),
)

index_zero = Fixture(
    "Ollama, every call has index 0",
    sse(
        chunk(tool_calls=[PARIS]),
        chunk(tool_calls=[{**ROME, "index": 0}]),
        chunk("tool_calls"),
        COUNTED,
        DONE,
    ),
    whole("tool_calls", tool_calls=[PARIS, {**ROME, "index": 0}]),
    Expected(calls=TWO, finish_reason="tool_calls", usage=usage(40, 12)),
)

index_zero_without_ids = Fixture(
    "Ollama behind a gateway, index 0 and no id, the same tool twice",
    sse(
        chunk(tool_calls=[calling(0, None, "weather", '{"city":"Paris"}')]),
        chunk(tool_calls=[calling(0, None, "weather", '{"city":"Rome"}')]),
        chunk("tool_calls"),
        DONE,
    ),
    whole(
        "tool_calls",
        tool_calls=[
            calling(0, None, "weather", '{"city":"Paris"}'),
            calling(0, None, "weather", '{"city":"Rome"}'),
        ],
    ),
    Expected(
        calls=(
            Call(None, "weather", '{"city":"Paris"}'),
            Call(None, "weather", '{"city":"Rome"}'),
        ),
        finish_reason="tool_calls",
        whole={"usage": usage(40, 12)},
    ),
)

same_id = Fixture(
    "Ollama, an id that collides",
    sse(
        chunk(tool_calls=[calling(0, "call_7", "add", '{"a":1}')]),
        chunk(tool_calls=[calling(1, "call_7", "weather", '{"city":"Rome"}')]),
        chunk("tool_calls"),
        COUNTED,
        DONE,
    ),
    whole(
        "tool_calls",
        tool_calls=[
            calling(0, "call_7", "add", '{"a":1}'),
            calling(1, "call_7", "weather", '{"city":"Rome"}'),
        ],
    ),
    Expected(
        calls=(Call("call_7", "add", '{"a":1}'), Call(None, "weather", '{"city":"Rome"}')),
        finish_reason="tool_calls",
        usage=usage(40, 12),
    ),
)

no_arguments = Fixture(
    "Ollama, a call without arguments",
    sse(
        chunk(tool_calls=[calling(0, "call_1", "now", "{}")]),
        chunk("tool_calls"),
        COUNTED,
        DONE,
    ),
    whole("tool_calls", tool_calls=[calling(0, "call_1", "now", "{}")]),
    Expected(calls=(Call("call_1", "now", "{}"),), finish_reason="tool_calls", usage=usage(40, 12)),
)

broke_off = Fixture(
    "Ollama, an error in the middle becomes an empty chunk and the end",
    sse(
        {"id": "", "object": "chat.completion.chunk", "created": 0, "model": "", "choices": []},
    ),
    None,
    ExpectedError(502, "sent an empty stream", "inference_server_empty_answer"),
)

FIXTURES = (*(new, old, index_zero, index_zero_without_ids, same_id, no_arguments, broke_off),)

REFUSALS = (
    Refusal(
        "Ollama, a message that it does not take",
        400,
        b'{"error":{"message":"invalid message content type: <nil>",'
        b'"type":"invalid_request_error","param":null,"code":null}}',
        "invalid message content type: <nil>",
        "invalid_request_error",
        None,
    ),
    Refusal(
        "Ollama, an unknown model",
        404,
        b'{"error":{"message":"model \\"x\\" not found, try pulling it first","type":"api_error",'
        b'"param":null,"code":null}}',
        'model "x" not found, try pulling it first',
        "api_error",
        "model_not_found",
    ),
    Refusal(
        "Ollama, an error that is a string",
        500,
        b'{"error":"model runner has unexpectedly stopped"}',
        "model runner has unexpectedly stopped",
        "server_error",
        "inference_server_error",
    ),
)
