"""vLLM (serving.py @5e918640; vllm 11392, 28806, 32506, 33402, 40986, 50624, 53269), and SGLang."""

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

ID_1 = "chatcmpl-tool-6a0c1a7e3c2b4f0e"
ID_2 = "chatcmpl-tool-c3f9d9b0a6f14a55"
COUNTED = usage(192, 21, prompt_tokens_details=None)


def chunk(delta: Json | None, finish: str | None = None, **more: Any) -> Json:
    choice = {
        "index": 0,
        "delta": delta,
        "logprobs": None,
        "finish_reason": finish,
        **({"stop_reason": None} if finish else {}),
        "token_ids": None,
    }
    return {
        "id": "chatcmpl-ae3f1c",
        "object": "chat.completion.chunk",
        "created": 1763919000,
        "model": "Qwen/Qwen3-8B",
        "choices": [] if delta is None else [choice],
        **more,
    }


def whole(finish: str, **message: Any) -> Json:
    said = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": [],
        "reasoning": None,
        **message,
    }
    choice = {
        "index": 0,
        "message": said,
        "logprobs": None,
        "finish_reason": finish,
        "stop_reason": None,
        "token_ids": None,
    }
    return {
        "id": "chatcmpl-77b0",
        "object": "chat.completion",
        "created": 1763919001,
        "model": "Qwen/Qwen3-8B",
        "choices": [choice],
        "service_tier": None,
        "system_fingerprint": None,
        "usage": COUNTED,
        "prompt_logprobs": None,
        "kv_transfer_params": None,
    }


OPENING = chunk({"role": "assistant", "content": ""})

hermes = Fixture(
    "vLLM hermes, name first and arguments after",
    sse(
        OPENING,
        chunk({"reasoning": "Need both."}),
        chunk({"tool_calls": [calling(0, ID_1, "add", None)]}),
        chunk({"tool_calls": [calling(0, None, None, '{"a": ')]}),
        chunk({"tool_calls": [calling(0, None, None, "1}")]}),
        chunk({"tool_calls": [calling(1, ID_2, "weather", None)]}),
        chunk({"tool_calls": [calling(1, None, None, '{"city": "Rome"}')]}),
        chunk({"content": ""}, "tool_calls"),
        chunk(None, usage=COUNTED),
        DONE,
    ),
    whole(
        "tool_calls",
        reasoning="Need both.",
        tool_calls=[
            calling(None, ID_1, "add", '{"a": 1}'),
            calling(None, ID_2, "weather", '{"city": "Rome"}'),
        ],
    ),
    Expected(
        fields={"reasoning": "Need both."},
        calls=(Call(ID_1, "add", '{"a": 1}'), Call(ID_2, "weather", '{"city": "Rome"}')),
        finish_reason="tool_calls",
        usage=COUNTED,
    ),
)

no_arguments = Fixture(
    "vLLM hermes, a call without arguments streams none",
    sse(
        OPENING,
        chunk({"tool_calls": [calling(0, ID_1, "now", None)]}),
        chunk({"tool_calls": [calling(1, ID_2, "now_there", None)]}),
        chunk({"content": ""}, "tool_calls"),
        chunk(None, usage=COUNTED),
        DONE,
    ),
    whole(
        "tool_calls",
        tool_calls=[calling(None, ID_1, "now", ""), calling(None, ID_2, "now_there", "")],
    ),
    Expected(
        calls=(Call(ID_1, "now", ""), Call(ID_2, "now_there", "")),
        finish_reason="tool_calls",
        usage=COUNTED,
    ),
)

named = Fixture(
    "vLLM, a named tool ends with stop",
    sse(
        OPENING,
        chunk({"tool_calls": [calling(0, ID_1, "add", '{"a"')]}),
        chunk({"tool_calls": [calling(0, None, None, ": 1}")]}),
        chunk({"content": ""}, "stop"),
        DONE,
    ),
    whole("stop", tool_calls=[calling(None, ID_1, "add", '{"a": 1}')]),
    Expected(calls=(Call(ID_1, "add", '{"a": 1}'),), whole={"usage": COUNTED}),
)

truncated = Fixture(
    "vLLM, a call cut by max_tokens",
    sse(
        OPENING,
        chunk({"tool_calls": [calling(0, ID_1, "add", None)]}),
        chunk({"tool_calls": [calling(0, None, None, '{"a": 1')]}),
        chunk({"content": ""}, "length"),
        chunk(None, usage=COUNTED),
        DONE,
    ),
    whole("length", tool_calls=[calling(None, ID_1, "add", '{"a": 1')]),
    Expected(
        calls=(Call(ID_1, "add", '{"a": 1', complete=False),),
        finish_reason="length",
        usage=COUNTED,
    ),
)

cut_before_arguments = Fixture(
    "vLLM, a call cut after its name",
    sse(
        OPENING,
        chunk({"tool_calls": [calling(0, ID_1, "add", '{"a": 1}')]}),
        chunk({"tool_calls": [calling(1, ID_2, "weather", None)]}),
        chunk({"content": ""}, "length"),
        DONE,
    ),
    whole(
        "length",
        tool_calls=[calling(None, ID_1, "add", '{"a": 1}'), calling(None, ID_2, "weather", "")],
    ),
    Expected(
        calls=(Call(ID_1, "add", '{"a": 1}'), Call(ID_2, "weather", "", complete=False)),
        finish_reason="length",
        whole={"usage": COUNTED},
    ),
)

continuous = Fixture(
    "vLLM, usage in every chunk",
    sse(
        {**OPENING, "usage": usage(16, 0)},
        chunk({"content": "Hel"}, usage=usage(16, 1)),
        chunk({"content": "lo"}, usage=usage(16, 2)),
        chunk({"content": ""}, "stop", usage=usage(16, 3)),
        chunk(None, usage=usage(16, 3)),
        DONE,
    ),
    {**whole("stop", content="Hello"), "usage": usage(16, 3)},
    Expected("Hello", usage=usage(16, 3)),
)

raw = Fixture(
    "vLLM hermes, a call as text in the stream",
    sse(
        OPENING,
        chunk({"content": "<tool"}),
        chunk({"content": '_call>\n{"name": "add", '}),
        chunk({"content": '"arguments": {"a": 1}}\n</tool_call>'}),
        chunk({"content": ""}, "stop"),
        DONE,
    ),
    whole("stop", content='<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'),
    Expected(
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>',
        whole={"usage": COUNTED},
    ),
)

failed = Fixture(
    "vLLM, an error object and the end",
    sse(
        OPENING,
        chunk({"content": "Half"}),
        {
            "error": {
                "message": "EngineCore encountered an issue.",
                "type": "InternalServerError",
                "param": None,
                "code": 500,
            }
        },
        DONE,
    ),
    {
        "error": {
            "message": "EngineCore encountered an issue.",
            "type": "InternalServerError",
            "param": None,
            "code": 500,
        }
    },
    ExpectedError(500, "EngineCore encountered an issue.", "inference_server_error", shown="Half"),
)

failed_of_old = Fixture(
    "vLLM of old, an error that is the chunk itself",
    sse(
        OPENING,
        {
            "object": "error",
            "message": "too many tokens",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        DONE,
    ),
    {
        "object": "error",
        "message": "too many tokens",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    },
    ExpectedError(400, "too many tokens", None),
)

failed_silently = Fixture(
    "SGLang, the error is dropped and only [DONE] comes",
    sse(DONE),
    None,
    ExpectedError(502, "sent an empty stream", "inference_server_empty_answer"),
)

FIXTURES = (
    *(hermes, no_arguments, named, truncated, cut_before_arguments, continuous, raw),
    *(failed, failed_of_old, failed_silently),
)

REFUSALS = (
    Refusal(
        "vLLM, tools without a parser",
        400,
        b'{"object":"error","message":"\\"auto\\" tool choice requires --enable-auto-tool-choice '
        b'and --tool-call-parser to be set","type":"BadRequestError","param":null,"code":400}',
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        "BadRequestError",
        None,
    ),
    Refusal(
        "vLLM, an unknown model",
        404,
        b'{"error":{"message":"The model `x` does not exist.","type":"NotFoundError",'
        b'"param":"model","code":404}}',
        "The model `x` does not exist.",
        "NotFoundError",
        "model_not_found",
    ),
    Refusal(
        "FastAPI, a body that it cannot read",
        422,
        b'{"detail":[{"type":"missing","loc":["body","messages"],"msg":"Field required"}]}',
        '[{"type":"missing","loc":["body","messages"],"msg":"Field required"}]',
        "invalid_request_error",
        None,
    ),
    Refusal(
        "FastAPI, a detail",
        503,
        b'{"detail":"Model is loading"}',
        "Model is loading",
        "server_error",
        "inference_server_error",
    ),
)
