"""llama-server (0.5.0-dev) and llama_cpp.server (0.3.36), both measured with a tiny model."""

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
    compact,
    sse,
    usage,
)

TIMINGS = {"prompt_n": 12, "prompt_ms": 31.2, "predicted_n": 7, "predicted_per_second": 88.1}
COUNTED = usage(31, 9, prompt_tokens_details={"cached_tokens": 4})
ID_1, ID_2 = "bRkPh5gWGxsOb2f4wyZ9fF1n0UKsdZ6r", "xX2v7QSOJVM8hZbJtHYl0XzW3eB9mLwq"


# llama-server


def chunk(
    delta: Json | None, finish: str | None = None, created: int = 1763917727, **more: Any
) -> Json:
    """`created` is the time of the chunk, so it changes within a stream."""
    choice = {"finish_reason": finish, "index": 0, "delta": delta}
    return {
        "choices": [] if delta is None else [choice],
        "created": created,
        "id": "chatcmpl-0fZPmYHYJ2r2Hq6kYH0m1cY1mHc5H0v0",
        "model": "tiny.gguf",
        "system_fingerprint": "b1-0c1e570",
        "object": "chat.completion.chunk",
        **more,
    }


def whole(message: Json, finish: str, **more: Any) -> Json:
    return {
        "choices": [{"finish_reason": finish, "index": 0, "message": message}],
        "created": 1763917731,
        "model": "tiny.gguf",
        "system_fingerprint": "b1-0c1e570",
        "object": "chat.completion",
        "usage": COUNTED,
        "id": "chatcmpl-7Wk2cZ2vJYfQx0mU5oJpXnqg0bQdRk3s",
        "timings": TIMINGS,
        **more,
    }


def whole_call(id: str, name: str, arguments: str) -> Json:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, "id": id}


OPENING = chunk({"role": "assistant", "content": None})
CLOSING = chunk(None, created=1763917730, usage=COUNTED, timings=TIMINGS)

text = Fixture(
    "llama-server, text",
    sse(
        OPENING,
        chunk({"content": "Grüße"}),
        chunk({"content": ","}, created=1763917728),
        ":",  # a ping after 30 s of silence
        chunk({"content": " Welt 🙂"}, created=1763917730),
        chunk({}, "stop", created=1763917730),
        CLOSING,
        DONE,
    ),
    whole({"role": "assistant", "content": "Grüße, Welt 🙂"}, "stop"),
    Expected("Grüße, Welt 🙂", usage=COUNTED),
)

calls = Fixture(
    "llama-server, parallel calls token by token",
    sse(
        OPENING,
        chunk({"tool_calls": [calling(0, ID_1, "add", "{")]}),
        chunk({"tool_calls": [calling(0, None, None, '"a" :')]}),
        chunk({"tool_calls": [calling(0, None, None, "1,")]}),
        chunk({"tool_calls": [calling(0, None, None, '"b" :1}')]}),
        chunk({"tool_calls": [calling(1, ID_2, "weather", "{")]}),
        chunk({"tool_calls": [calling(1, None, None, '"city": "')]}),
        chunk({"tool_calls": [calling(1, None, None, "Köln")]}),
        chunk({"tool_calls": [calling(1, None, None, '"}')]}),
        chunk({}, "tool_calls"),
        CLOSING,
        DONE,
    ),
    whole(
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                whole_call(ID_1, "add", '{"a" :1,"b" :1}'),
                whole_call(ID_2, "weather", '{"city": "Köln"}'),
            ],
        },
        "tool_calls",
    ),
    Expected(
        calls=(
            Call(ID_1, "add", '{"a" :1,"b" :1}'),
            Call(ID_2, "weather", '{"city": "Köln"}'),
        ),
        finish_reason="tool_calls",
        usage=COUNTED,
    ),
)

reasoning = Fixture(
    "llama-server, reasoning before content",
    sse(
        OPENING,
        chunk({"reasoning_content": "The user"}),
        chunk({"reasoning_content": " greets."}),
        chunk({"content": "Hello."}),
        chunk({}, "stop"),
        CLOSING,
        DONE,
    ),
    whole(
        {"role": "assistant", "content": "Hello.", "reasoning_content": "The user greets."}, "stop"
    ),
    Expected("Hello.", {"reasoning_content": "The user greets."}, usage=COUNTED),
)

cut_call = Fixture(
    "llama-server, a call cut by max_tokens",
    sse(
        OPENING,
        chunk({"tool_calls": [calling(0, ID_1, "add", "{")]}),
        chunk({"tool_calls": [calling(0, None, None, '"a": 12')]}),
        chunk({}, "length"),
        CLOSING,
        DONE,
    ),
    whole(
        {"role": "assistant", "content": "", "tool_calls": [whole_call(ID_1, "add", '{"a": 12')]},
        "length",
    ),
    Expected(
        calls=(Call(ID_1, "add", '{"a": 12', complete=False),),
        finish_reason="length",
        usage=COUNTED,
    ),
)

failed = Fixture(
    "llama-server, a failure in the middle of a call",
    sse(
        OPENING,
        chunk({"content": "I add."}),
        chunk({"tool_calls": [calling(0, ID_1, "add", "{")]}),
        chunk({"tool_calls": [calling(0, None, None, '"a')]}),
        {
            "error": {
                "code": 500,
                "message": "The model produced output that does not match the expected "
                "peg-native format",
                "type": "server_error",
            }
        },
    ),
    None,
    ExpectedError(
        500,
        "The model produced output that does not match the expected peg-native format",
        "inference_server_error",
        shown="I add.",
    ),
)

arguments_as_object = Fixture(
    "llama.cpp for a while, arguments as an object",
    sse(
        OPENING,
        chunk({"tool_calls": [calling(0, ID_1, "add", {"a": 1, "b": [2, None]})]}),
        chunk({}, "tool_calls"),
        DONE,
    ),
    whole(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [calling(None, ID_1, "add", {"a": 1, "b": [2, None]})],
        },
        "tool_calls",
    ),
    Expected(
        calls=(Call(ID_1, "add", '{"a":1,"b":[2,null]}'),),
        finish_reason="tool_calls",
        whole={"usage": COUNTED},
    ),
)


# llama_cpp.server: everything is said in every chunk


def python_chunk(finish: str | None = None, **delta: Any) -> Json:
    said = {"role": None, "content": None, "function_call": None, "tool_calls": None, **delta}
    return {
        "id": "chatcmpl-1f6b1f0e",
        "model": "tiny",
        "choices": [{"index": 0, "delta": said, "logprobs": None, "finish_reason": finish}],
        "object": "chat.completion.chunk",
        "created": 1763917800,
    }


def python_whole(message: Json, finish: str) -> Json:
    return {
        "id": "chatcmpl-5a0c",
        "object": "chat.completion",
        "created": 1763917801,
        "model": "tiny",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": usage(18, 6),
    }


PYTHON_ID = "call__0_add_cmpl-2c1e"


def python_call(arguments: str) -> Json:
    return python_chunk(
        function_call={"name": "add", "arguments": arguments},
        tool_calls=[calling(0, PYTHON_ID, "add", arguments)],
    )


python_text = Fixture(
    "llama_cpp.server, text",
    sse(
        python_chunk(role="assistant"),
        python_chunk(content="Hel"),
        python_chunk(content="lo"),
        python_chunk("stop"),
        DONE,
    ),
    python_whole({"role": "assistant", "content": "Hello"}, "stop"),
    Expected("Hello", whole={"usage": usage(18, 6)}),
)

python_calls = Fixture(
    "llama_cpp.server, id and name in every fragment, twice",
    sse(
        python_chunk(role="assistant"),
        python_call("{ "),
        python_call('"a'),
        python_call('": 1'),
        python_call(" }"),
        python_call(""),
        python_chunk("tool_calls"),
        DONE,
    ),
    python_whole(
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "add", "arguments": '{ "a": 1 }'},
            "tool_calls": [calling(None, PYTHON_ID, "add", '{ "a": 1 }')],
        },
        "tool_calls",
    ),
    Expected(
        calls=(Call(PYTHON_ID, "add", '{ "a": 1 }'),),
        finish_reason="tool_calls",
        whole={"usage": usage(18, 6)},
    ),
)

python_raw = Fixture(
    "llama_cpp.server, a call as text",
    sse(
        python_chunk(role="assistant"),
        python_chunk(content="<tool_call>"),
        python_chunk(content='{"name": "add", "arguments": {}}'),
        python_chunk(content="</tool_call>"),
        python_chunk("stop"),
        DONE,
    ),
    python_whole(
        {
            "role": "assistant",
            "content": '<tool_call>{"name": "add", "arguments": {}}</tool_call>',
        },
        "stop",
    ),
    Expected(
        '<tool_call>{"name": "add", "arguments": {}}</tool_call>', whole={"usage": usage(18, 6)}
    ),
)

python_empty = Fixture(
    "llama_cpp.server, 200 with an empty body",
    b"",
    None,
    ExpectedError(502, "sent an empty stream", "inference_server_empty_answer"),
)


FIXTURES = (
    *(text, calls, reasoning, cut_call, failed, arguments_as_object),
    *(python_text, python_calls, python_raw, python_empty),
)

BAD_SCHEMA = "JSON schema error at #: unrecognized type nonsense"
TOO_LONG = "the request exceeds the available context size, try increasing it"

REFUSALS = (
    Refusal(
        "llama-server, a bad tool schema",
        400,
        compact(
            {"error": {"code": 400, "message": BAD_SCHEMA, "type": "invalid_request_error"}}
        ).encode(),
        BAD_SCHEMA,
        "invalid_request_error",
        None,
    ),
    Refusal(
        "llama-server, a prompt that is too long",
        400,
        compact(
            {
                "error": {
                    "code": 400,
                    "message": TOO_LONG,
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 9000,
                    "n_ctx": 4096,
                }
            }
        ).encode(),
        TOO_LONG,
        "exceed_context_size_error",
        None,
    ),
    Refusal(
        "llama-server, a wrong key",
        401,
        b'{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}',
        'inference server "it" refused the bridge\'s key: Invalid API Key',
        "authentication_error",
        "inference_server_auth",
    ),
    Refusal(
        "llama_cpp.server, an error without a message",
        500,
        b'{"error":{"message":"","type":"internal_server_error","param":null,"code":null}}',
        'inference server "it" answered 500 without saying why',
        "internal_server_error",
        "inference_server_error",
    ),
)
