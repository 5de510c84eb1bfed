"""OpenAI itself, Azure (pydantic-ai 164, llm 294, autogen 6465), and what copies their API."""

from typing import Any

from mcp_bridge.types import Json
from tests.inference.engines.fixture import (
    DONE,
    Call,
    Expected,
    Fixture,
    Refusal,
    calling,
    compact,
    sse,
    usage,
)

COUNTED = usage(
    82,
    17,
    prompt_tokens_details={"cached_tokens": 0, "audio_tokens": 0},
    completion_tokens_details={"reasoning_tokens": 0},
)


def chunk(delta: Json | None, finish: str | None = None, **more: Any) -> Json:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {
        "id": "chatcmpl-C9zkQ",
        "object": "chat.completion.chunk",
        "created": 1763920000,
        "model": "gpt-5.2-2025-12-11",
        "service_tier": "default",
        "system_fingerprint": None,
        "choices": [] if delta is None else [choice],
        "usage": None,
        "obfuscation": "Xk2",
        **more,
    }


def whole(finish: str, **message: Any) -> Json:
    said = {"role": "assistant", "content": None, **message, "refusal": None, "annotations": []}
    return {
        "id": "chatcmpl-C9zkR",
        "object": "chat.completion",
        "created": 1763920001,
        "model": "gpt-5.2-2025-12-11",
        "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": finish}],
        "usage": COUNTED,
        "service_tier": "default",
        "system_fingerprint": None,
    }


OPENING = chunk({"role": "assistant", "content": "", "refusal": None})
CALL_OPENING = chunk({"role": "assistant", "content": None})

text = Fixture(
    "OpenAI, text",
    sse(
        OPENING,
        chunk({"content": "Hello"}),
        chunk({"content": "!"}),
        chunk({}, "stop"),
        chunk(None, usage=COUNTED),
        DONE,
    ),
    whole("stop", content="Hello!"),
    Expected("Hello!", usage=COUNTED),
)

calls = Fixture(
    "OpenAI, parallel calls",
    sse(
        CALL_OPENING,
        chunk({"tool_calls": [calling(0, "call_a", "add", "")]}),
        chunk({"tool_calls": [calling(0, None, None, '{"a"')]}),
        chunk({"tool_calls": [calling(0, None, None, ":1}")]}),
        chunk({"tool_calls": [calling(1, "call_b", "now", "")]}),
        chunk({"tool_calls": [calling(1, None, None, "{}")]}),
        chunk({}, "tool_calls"),
        chunk(None, usage=COUNTED),
        DONE,
    ),
    whole(
        "tool_calls",
        tool_calls=[
            calling(None, "call_a", "add", '{"a":1}'),
            calling(None, "call_b", "now", "{}"),
        ],
    ),
    Expected(
        calls=(Call("call_a", "add", '{"a":1}'), Call("call_b", "now", "{}")),
        finish_reason="tool_calls",
        usage=COUNTED,
    ),
)

refusal = Fixture(
    "OpenAI, a refusal",
    sse(
        chunk({"role": "assistant", "content": None, "refusal": ""}),
        chunk({"refusal": "I can't"}),
        chunk({"refusal": " do that."}),
        chunk({}, "stop"),
        DONE,
    ),
    {
        **whole("stop"),
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None,
                    "refusal": "I can't do that.",
                },
                "finish_reason": "stop",
            }
        ],
    },
    Expected(fields={"refusal": "I can't do that."}, whole={"usage": COUNTED}),
)

function_call = Fixture(
    "OpenAI of old, function_call",
    sse(
        CALL_OPENING,
        chunk({"function_call": {"name": "add", "arguments": ""}}),
        chunk({"function_call": {"arguments": '{"a"'}}),
        chunk({"function_call": {"arguments": ":1}"}}),
        chunk({}, "function_call"),
        DONE,
    ),
    whole("function_call", function_call={"name": "add", "arguments": '{"a":1}'}),
    Expected(
        calls=(Call(None, "add", '{"a":1}'),),
        finish_reason="tool_calls",
        whole={"usage": COUNTED},
    ),
)

SHELL = {"type": "custom", "custom": {"name": "shell", "input": "ls -l"}}

custom = Fixture(
    "OpenAI, a custom tool",
    sse(
        CALL_OPENING,
        chunk(
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "call_c",
                        "type": "custom",
                        "custom": {"name": "shell", "input": ""},
                    }
                ]
            }
        ),
        chunk({"tool_calls": [{"index": 0, "custom": {"input": "ls "}}]}),
        chunk({"tool_calls": [{"index": 0, "custom": {"input": "-l"}}]}),
        chunk({}, "tool_calls"),
        DONE,
    ),
    whole(
        "tool_calls",
        tool_calls=[
            {"id": "call_c", **SHELL},
        ],
    ),
    Expected(
        calls=(Call("call_c", "shell", "ls -l", extra=SHELL),),
        finish_reason="tool_calls",
        whole={"usage": COUNTED},
    ),
)

SAFE = {"hate": {"filtered": False, "severity": "safe"}}

azure = Fixture(
    "Azure, the first chunk has no choice and a late one no delta",
    sse(
        {
            "choices": [],
            "created": 0,
            "id": "",
            "model": "",
            "object": "",
            "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}],
        },
        OPENING,
        chunk({"content": "Hello"}),
        chunk({}, "stop"),
        {
            "choices": [
                {
                    "content_filter_offsets": {"check_offset": 44, "start_offset": 44},
                    "content_filter_results": SAFE,
                    "finish_reason": None,
                    "index": 0,
                }
            ],
            "created": 0,
            "id": "",
            "model": "",
            "object": "",
        },
        DONE,
    ),
    {
        **whole("stop", content="Hello"),
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}],
    },
    Expected("Hello", whole={"usage": COUNTED}),
)

azure_filtered = Fixture(
    "Azure, an answer that is filtered away",
    sse(OPENING, chunk({"content": "I"}), chunk({}, "content_filter"), DONE),
    whole("content_filter", content="I"),
    Expected("I", finish_reason="content_filter", whole={"usage": COUNTED}),
)

FIXTURES = (text, calls, refusal, function_call, custom, azure, azure_filtered)


def error(message: str, type: str, code: Any, param: str | None = None) -> bytes:
    return compact(
        {"error": {"message": message, "type": type, "param": param, "code": code}}
    ).encode()


REFUSALS = (
    Refusal(
        "OpenAI, a bad schema",
        400,
        error(
            "Invalid schema for function 'x'",
            "invalid_request_error",
            "invalid_function_parameters",
        ),
        "Invalid schema for function 'x'",
        "invalid_request_error",
        "invalid_function_parameters",
    ),
    Refusal(
        "OpenAI, too many requests",
        429,
        error("Rate limit reached for gpt-5.2", "requests", "rate_limit_exceeded"),
        "Rate limit reached for gpt-5.2",
        "requests",
        "rate_limit_exceeded",
        {"retry-after": "20", "x-ratelimit-remaining-requests": "0", "x-request-id": "req_1"},
    ),
    Refusal(
        "Azure, nothing there",
        404,
        b'{"error":{"code":"404","message": "Resource not found"}}',
        "Resource not found",
        "invalid_request_error",
        "404",
    ),
    Refusal(
        "a wrong base_url",
        404,
        b'{"detail":"Not Found"}',
        'inference server "it" has no such endpoint (404): '
        "check base_url, which usually ends in /v1",
        "invalid_request_error",
        "not_found",
    ),
    Refusal(
        "a proxy's page",
        502,
        b"<html><head><title>502 Bad Gateway</title></head>"
        b"<body><center><h1>502 Bad Gateway</h1></center><hr>nginx</body></html>",
        "502 Bad Gateway nginx",
        "server_error",
        "inference_server_error",
    ),
    Refusal(
        "nothing at all",
        503,
        b"",
        'inference server "it" answered 503 without saying why',
        "server_error",
        "inference_server_error",
    ),
)
