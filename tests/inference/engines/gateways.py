"""Hosted models and the gateways in front of them: each with its own idea of the same API."""

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

COUNTED = usage(20, 5)


def chunk(delta: Json | None, finish: str | None = None, **more: Any) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {
        "id": "gen-1763921000-abc",
        "object": "chat.completion.chunk",
        "created": 1763921000,
        "model": "some/model",
        "choices": [] if delta is None else [choice],
        **more,
    }


def whole(message: Json, finish: str | None, **more: Any) -> Json:
    return {
        "id": "gen-1763921001-def",
        "object": "chat.completion",
        "created": 1763921001,
        "model": "some/model",
        "choices": [
            {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
        ],
        **more,
    }


OPENING = chunk({"role": "assistant", "content": ""})
HELLO = Expected("Hello")
SAID = chunk({"content": "Hello"})
STOP = chunk({}, "stop")
WHOLE_HELLO = whole({"content": "Hello"}, "stop")
ADD = calling(0, "call_1", "add", '{"a":1}')
ADDED = (Call("call_1", "add", '{"a":1}'),)
EMPTY = ExpectedError(502, "sent an empty stream", "inference_server_empty_answer")


# LM Studio (lmstudio-bug-tracker 649, 830, 1318)

lm_studio = Fixture(
    "LM Studio, an empty name in later fragments, and a call that is none",
    sse(
        chunk({"role": "assistant", "tool_calls": [calling(0, "365748204", "add", "")]}),
        chunk({"tool_calls": [calling(0, None, "", '{"a":')]}),
        chunk({"tool_calls": [calling(0, None, "", "1}")]}),
        chunk({"tool_calls": [{"index": 1, "id": "", "function": {"name": "", "arguments": ""}}]}),
        chunk({}, "tool_calls"),
        DONE,
    ),
    whole(
        {"content": "", "tool_calls": [calling(None, "365748204", "add", '{"a":1}')]}, "tool_calls"
    ),
    Expected(calls=(Call("365748204", "add", '{"a":1}'),), finish_reason="tool_calls"),
)

lm_studio_text = Fixture(
    "LM Studio, an empty list of calls beside text",
    sse(OPENING, SAID, chunk({}, "stop", usage=COUNTED), DONE),
    whole({"content": "Hello", "tool_calls": []}, "stop", usage=COUNTED),
    Expected("Hello", usage=COUNTED),
)


# OpenRouter (its documentation; opencode 20531)

openrouter = Fixture(
    "OpenRouter, comments, reasoning details and reasons in upper case",
    sse(
        ": OPENROUTER PROCESSING",
        ": OPENROUTER PROCESSING",
        chunk(
            {
                "role": "assistant",
                "content": "",
                "reasoning": "Add",
                "reasoning_details": [{"type": "reasoning.text", "text": "Add", "index": 0}],
            },
            provider="Google",
        ),
        ": OPENROUTER PROCESSING",
        chunk(
            {
                "role": "assistant",
                "content": "",
                "reasoning": " them",
                "reasoning_details": [{"type": "reasoning.text", "text": " them", "index": 0}],
            }
        ),
        chunk({"role": "assistant", "content": "", "tool_calls": [ADD]}),
        chunk({"role": "assistant", "content": ""}, "TOOL_CALLS"),
        chunk(None, usage=COUNTED),
        DONE,
    ),
    whole(
        {
            "content": "",
            "refusal": None,
            "reasoning": "Add them",
            "reasoning_details": [{"type": "reasoning.text", "text": "Add them", "index": 0}],
            "tool_calls": [ADD],
        },
        "TOOL_CALLS",
        provider="Google",
        usage=COUNTED,
    ),
    Expected(
        fields={
            "reasoning": "Add them",
            "reasoning_details": [{"type": "reasoning.text", "text": "Add them", "index": 0}],
        },
        calls=ADDED,
        finish_reason="tool_calls",
        usage=COUNTED,
    ),
)

openrouter_failed = Fixture(
    "OpenRouter, an error inside the stream",
    sse(
        ": OPENROUTER PROCESSING",
        OPENING,
        chunk({"content": "Hel"}),
        {
            **chunk({"content": ""}, "error"),
            "error": {"code": 429, "message": "Rate limited upstream", "metadata": {"raw": "…"}},
        },
        DONE,
    ),
    {
        "error": {"code": 429, "message": "Rate limited upstream", "metadata": {"raw": "…"}},
        "user_id": "user_1",
    },
    ExpectedError(429, "Rate limited upstream", "rate_limit_exceeded", shown="Hel"),
)

openrouter_failed_choice = Fixture(
    "OpenRouter, an error inside the choice",
    sse(
        OPENING,
        {
            **chunk(None),
            "choices": [
                {
                    "index": 0,
                    "delta": {"role": "assistant", "content": ""},
                    "finish_reason": "error",
                    "error": {"code": 502, "message": "Provider returned error"},
                }
            ],
        },
        DONE,
    ),
    {
        **whole({}, None),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": ""},
                "finish_reason": "error",
                "error": {"code": 502, "message": "Provider returned error"},
            }
        ],
    },
    ExpectedError(502, "Provider returned error", "inference_server_error"),
)

duplicated = Fixture(
    "OpenRouter, the same call twice under two ids",
    sse(
        OPENING,
        chunk({"tool_calls": [ADD]}),
        chunk({"tool_calls": [calling(1, "call_2", "add", '{"a":1}')]}),
        chunk({}, "tool_calls"),
        DONE,
    ),
    whole({"tool_calls": [ADD, calling(1, "call_2", "add", '{"a":1}')]}, "tool_calls"),
    Expected(calls=(*ADDED, Call("call_2", "add", '{"a":1}')), finish_reason="tool_calls"),
)


# Gemini's OpenAI endpoint (OpenMAIC 1556, python-genai 2868, opencode 17902, qwen-code 9884)

SIGNED = {"google": {"thought_signature": "CiQB0e2Kb2yZ=="}}

gemini = Fixture(
    "Gemini, no index, stop after calls, a signature to send back",
    sse(
        chunk(
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "extra_content": SIGNED,
                        "function": {"arguments": '{"a":1}', "name": "add"},
                        "id": "function-call-1",
                        "type": "function",
                    }
                ],
            }
        ),
        chunk(
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "function": {"arguments": "{}", "name": "now"},
                        "id": "function-call-2",
                        "type": "function",
                    }
                ],
            }
        ),
        chunk({"role": "assistant"}, "stop", usage=COUNTED),
        DONE,
    ),
    whole(
        {
            "tool_calls": [
                {
                    "extra_content": SIGNED,
                    "function": {"arguments": '{"a":1}', "name": "add"},
                    "id": "function-call-1",
                    "type": "function",
                },
                {
                    "function": {"arguments": "{}", "name": "now"},
                    "id": "function-call-2",
                    "type": "function",
                },
            ]
        },
        "tool_calls",
        usage=COUNTED,
    ),
    Expected(
        calls=(
            Call("function-call-1", "add", '{"a":1}', extra={"extra_content": SIGNED}),
            Call("function-call-2", "now", "{}"),
        ),
        usage=COUNTED,
        whole={"finish_reason": "tool_calls"},
    ),
)

gemini_no_ids = Fixture(
    "Gemini, neither index nor id, both calls in one chunk",
    sse(
        chunk(
            {
                "role": "assistant",
                "tool_calls": [
                    calling(None, "", "weather", '{"city":"Rome"}'),
                    calling(None, "", "weather", '{"city":"Oslo"}'),
                ],
            },
            "stop",
        ),
        DONE,
    ),
    whole(
        {
            "tool_calls": [
                calling(None, "", "weather", '{"city":"Rome"}'),
                calling(None, "", "weather", '{"city":"Oslo"}'),
            ]
        },
        "stop",
    ),
    Expected(
        calls=(
            Call(None, "weather", '{"city":"Rome"}'),
            Call(None, "weather", '{"city":"Oslo"}'),
        )
    ),
)

gemini_late_signature = Fixture(
    "Gemini behind a gateway, the signature in a delta of its own",
    sse(
        OPENING,
        chunk({"tool_calls": [ADD]}),
        chunk({"tool_calls": [{"index": 0, "extra_content": SIGNED}]}),
        chunk({}, "stop"),
        DONE,
    ),
    whole({"tool_calls": [{**ADD, "extra_content": SIGNED}]}, "stop"),
    Expected(calls=(Call("call_1", "add", '{"a":1}', extra={"extra_content": SIGNED}),)),
)

gemini_cut = Fixture(
    "Gemini, nothing said before MAX_TOKENS",
    sse(chunk({"role": "assistant"}, "MAX_TOKENS", usage=usage(20, 0)), DONE),
    {
        "choices": [{"finish_reason": "MAX_TOKENS", "index": 0}],
        "created": 1763921002,
        "id": "x",
        "model": "gemini-3-flash",
        "object": "chat.completion.chunk",
        "usage": usage(20, 0),
    },
    Expected("", finish_reason="length", usage=usage(20, 0)),
)

gemini_stop = Fixture(
    "Gemini, STOP in upper case and a whole answer that is called a chunk",
    sse(chunk({"role": "assistant", "content": "Hello"}, "STOP"), DONE),
    {**whole({"content": "Hello"}, "STOP"), "object": "chat.completion.chunk"},
    HELLO,
)


# Reasoning models

deepseek = Fixture(
    "DeepSeek, reasoning that has to come back with the call",
    sse(
        chunk({"role": "assistant", "content": None, "reasoning_content": ""}),
        chunk({"content": None, "reasoning_content": "I"}),
        chunk({"content": None, "reasoning_content": " add."}),
        chunk({"content": "Adding.", "reasoning_content": None}),
        chunk({"tool_calls": [calling(0, "call_00_X1", "add", "")]}),
        chunk({"tool_calls": [calling(0, None, None, '{"a": 1}')]}),
        chunk({"content": "", "reasoning_content": None}, "tool_calls", usage=COUNTED),
        DONE,
    ),
    whole(
        {
            "content": "Adding.",
            "reasoning_content": "I add.",
            "tool_calls": [calling(0, "call_00_X1", "add", '{"a": 1}')],
        },
        "tool_calls",
        usage=COUNTED,
    ),
    Expected(
        "Adding.",
        {"reasoning_content": "I add."},
        calls=(Call("call_00_X1", "add", '{"a": 1}'),),
        finish_reason="tool_calls",
        usage=COUNTED,
    ),
)

mistral = Fixture(
    "Mistral, content as parts",
    sse(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}),
        chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "."}]}]}),
        chunk({"content": [{"type": "text", "text": "Hel"}]}),
        chunk({"content": "lo"}),
        chunk({"content": ""}, "stop", usage=COUNTED),
        DONE,
    ),
    whole(
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                {"type": "text", "text": "Hello"},
            ],
            "tool_calls": None,
        },
        "stop",
        usage=COUNTED,
    ),
    Expected("Hello", {"reasoning_content": "Hm."}, usage=COUNTED),
)

mistral_calls = Fixture(
    "Mistral, a whole call in the last chunk",
    sse(
        chunk({"role": "assistant", "content": ""}),
        chunk(
            {"content": "", "tool_calls": [calling(0, "D681PevKs", "add", '{"a": 1}')]},
            "tool_calls",
            usage=COUNTED,
        ),
        DONE,
    ),
    whole(
        {"content": "", "tool_calls": [calling(0, "D681PevKs", "add", '{"a": 1}')]},
        "tool_calls",
        usage=COUNTED,
    ),
    Expected(
        calls=(Call("D681PevKs", "add", '{"a": 1}'),),
        finish_reason="tool_calls",
        usage=COUNTED,
    ),
)


# Fragments that are hard to put together

dashscope = Fixture(
    "DashScope, an empty id and name in later fragments",
    sse(
        chunk(
            {"role": "assistant", "content": None, "tool_calls": [calling(0, "call_q1", "add", "")]}
        ),
        chunk(
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "",
                        "type": "function",
                        "function": {"name": "", "arguments": '{"a"'},
                    }
                ]
            }
        ),
        chunk(
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "",
                        "type": "function",
                        "function": {"name": "", "arguments": ": 1}"},
                    }
                ]
            }
        ),
        chunk(
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "",
                        "type": "function",
                        "function": {"name": "", "arguments": None},
                    }
                ]
            }
        ),
        chunk({"content": ""}, "tool_calls"),
        DONE,
    ),
    whole({"content": "", "tool_calls": [calling(0, "call_q1", "add", '{"a": 1}')]}, "tool_calls"),
    Expected(calls=(Call("call_q1", "add", '{"a": 1}'),), finish_reason="tool_calls"),
)

litellm = Fixture(
    "LiteLLM, the first call has index 1",
    sse(
        OPENING,
        chunk({"tool_calls": [calling(1, "call_1", "add", "")]}),
        chunk({"tool_calls": [calling(1, None, None, '{"a":1}')]}),
        chunk({}, "tool_calls"),
        DONE,
    ),
    whole({"tool_calls": [calling(None, "call_1", "add", '{"a":1}')]}, "tool_calls"),
    Expected(calls=ADDED, finish_reason="tool_calls"),
)

new_ids = Fixture(
    "a gateway that makes up an id for every piece",
    sse(
        OPENING,
        chunk({"tool_calls": [calling(0, "call_1", "add", "")]}),
        chunk({"tool_calls": [calling(0, "call_8", None, '{"a"')]}),
        chunk({"tool_calls": [calling(0, "call_9", None, ":1}")]}),
        chunk({}, "tool_calls"),
        DONE,
    ),
    None,
    Expected(calls=ADDED, finish_reason="tool_calls"),
)

repeated = Fixture(
    "a gateway that says the whole call again at the end",
    sse(
        OPENING,
        chunk({"tool_calls": [calling(0, "call_1", "add", '{"a"')]}),
        chunk({"tool_calls": [calling(0, "call_1", "add", ":1}")]}),
        chunk({"tool_calls": [ADD]}, "tool_calls"),
        DONE,
    ),
    None,
    Expected(calls=ADDED, finish_reason="tool_calls"),
)

two_choices = Fixture(
    "a gateway that puts text and calls into two choices",
    sse(
        {
            **chunk(None),
            "choices": [
                {"index": 0, "delta": {"role": "assistant", "content": "Adding."}},
                {"index": 0, "delta": {"role": "assistant", "tool_calls": [ADD]}},
            ],
        },
        chunk({}, "tool_calls"),
        DONE,
    ),
    {
        **whole({}, None),
        "choices": [
            {"index": 0, "message": {"content": "Adding."}, "finish_reason": "tool_calls"},
            {"index": 0, "message": {"tool_calls": [ADD]}, "finish_reason": "tool_calls"},
        ],
    },
    Expected("Adding.", calls=ADDED, finish_reason="tool_calls"),
)


# Streams

no_space = Fixture(
    "a Spring gateway, no space after data: and CRLF",
    sse(OPENING, SAID, STOP, DONE, end="\r\n\r\n").replace(b"data: ", b"data:"),
    WHOLE_HELLO,
    HELLO,
)

carriage_returns = Fixture(
    "a gateway whose lines end in CR",
    sse(OPENING, SAID, STOP, DONE, end="\r\r"),
    WHOLE_HELLO,
    HELLO,
)

other_lines = Fixture(
    "a gateway that names its events and numbers them",
    b"retry: 3000\n\n"
    + b"".join(
        b"id: %d\nevent: message\n%b" % (number, line)
        for number, line in enumerate([sse(OPENING), sse(SAID), sse(STOP), sse(DONE)])
    ),
    WHOLE_HELLO,
    HELLO,
)

several_lines = Fixture(
    "a gateway that prints its JSON over several lines, behind a byte order mark",
    b'\xef\xbb\xbfdata: {"choices": [\n'
    b'data:   {"delta": {"content": "Hello"}, "index": 0}\n'
    b"data: ]}\n\n" + sse(STOP, DONE),
    WHOLE_HELLO,
    HELLO,
)

warning = Fixture(
    "a gateway that warns in a chunk without choices (langwatch 700)",
    sse({"warning": "context is nearly full"}, OPENING, SAID, STOP, DONE),
    {**WHOLE_HELLO, "warning": "context is nearly full"},
    HELLO,
)

nothing_at_the_end = Fixture(
    "a gateway that ends without [DONE] and without a blank line",
    sse(OPENING, SAID, STOP).rstrip(),
    WHOLE_HELLO,
    HELLO,
)

cut = Fixture(
    "a gateway that ends without a finish reason (opencode 40061)",
    sse(OPENING, SAID),
    None,
    Expected("Hello", finish_reason=None),
)

cut_in_call = Fixture(
    "a gateway that ends in the middle of a call",
    sse(
        OPENING,
        chunk({"content": "Adding."}),
        chunk({"tool_calls": [ADD]}),
        chunk({"tool_calls": [calling(1, "call_2", "add", '{"a"')]}),
    ),
    None,
    Expected(
        "Adding.",
        calls=(*ADDED, Call("call_2", "add", '{"a"', complete=False)),
        finish_reason=None,
    ),
)

cut_at_once = Fixture(
    "a gateway that ends after the role",
    sse(OPENING),
    None,
    ExpectedError(502, "broke off before it said anything", "inference_server_empty_answer"),
)

only_comments = Fixture(
    "a gateway that only keeps the line open", sse(": ping", ": ping"), None, EMPTY
)


# Usage

usage_first = Fixture(
    "a gateway that counts first",
    sse(chunk({"role": "assistant", "content": ""}, usage=COUNTED), SAID, STOP, DONE),
    {**WHOLE_HELLO, "usage": COUNTED},
    Expected("Hello", usage=COUNTED),
)

usage_twice = Fixture(
    "a gateway that counts twice",
    sse(OPENING, SAID, chunk({}, "stop", usage=COUNTED), chunk(None, usage=COUNTED), DONE),
    {**WHOLE_HELLO, "usage": COUNTED},
    Expected("Hello", usage=COUNTED),
)

usage_in_choice = Fixture(
    "Moonshot, usage inside the choice",
    sse(
        OPENING,
        SAID,
        {
            **chunk(None),
            "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": COUNTED}],
        },
        DONE,
    ),
    {**WHOLE_HELLO, "usage": COUNTED},
    Expected("Hello", usage=COUNTED),
)

usage_of_groq = Fixture(
    "Groq, usage under its own name",
    sse(OPENING, SAID, chunk({}, "stop", x_groq={"id": "req_1", "usage": COUNTED}), DONE),
    {**WHOLE_HELLO, "usage": COUNTED, "x_groq": {"id": "req_1"}},
    Expected("Hello", usage=COUNTED),
)

no_usage = Fixture(
    "a gateway that says null or nothing for usage",
    sse({**OPENING, "usage": None}, {**SAID, "usage": {}}, {**STOP, "usage": None}, DONE),
    {**WHOLE_HELLO, "usage": None},
    HELLO,
)


# Reasons in other words

anthropic = Fixture(
    "Claude behind a gateway, end_turn",
    sse(OPENING, SAID, chunk({}, "end_turn"), DONE),
    whole({"content": "Hello"}, "end_turn"),
    HELLO,
)

anthropic_calls = Fixture(
    "Claude behind a gateway, tool_use",
    sse(OPENING, chunk({"tool_calls": [ADD]}), chunk({}, "tool_use"), DONE),
    whole({"tool_calls": [ADD]}, "tool_use"),
    Expected(calls=ADDED, finish_reason="tool_calls"),
)

empty_reasons = Fixture(
    "a gateway with an empty reason in every chunk",
    sse(
        chunk({"role": "assistant", "content": "Hel"}, ""), chunk({"content": "lo"}, ""), STOP, DONE
    ),
    WHOLE_HELLO,
    HELLO,
)

FIXTURES = (
    *(lm_studio, lm_studio_text, openrouter, openrouter_failed, openrouter_failed_choice),
    *(duplicated, gemini, gemini_no_ids, gemini_late_signature, gemini_cut, gemini_stop),
    *(deepseek, mistral, mistral_calls, dashscope, litellm, new_ids, repeated, two_choices),
    *(no_space, carriage_returns, other_lines, several_lines, warning, nothing_at_the_end),
    *(cut, cut_in_call, cut_at_once, only_comments),
    *(usage_first, usage_twice, usage_in_choice, usage_of_groq, no_usage),
    *(anthropic, anthropic_calls, empty_reasons),
)

GEMINI_SAYS = "Unknown name \"const\" at 'tools[0].function_declarations[0]'"

REFUSALS = (
    Refusal(
        "Gemini, an error in a list",
        400,
        compact(
            [{"error": {"code": 400, "message": GEMINI_SAYS, "status": "INVALID_ARGUMENT"}}]
        ).encode(),
        GEMINI_SAYS,
        "invalid_request_error",
        None,
    ),
    Refusal(
        "OpenRouter, no credits",
        402,
        b'{"error":{"message":"Insufficient credits","code":402},"user_id":"user_1"}',
        "Insufficient credits",
        "invalid_request_error",
        None,
    ),
    Refusal(
        "Mistral, a code that is a string",
        400,
        b'{"object":"error","message":"Expected last role User or Tool",'
        b'"type":"invalid_request_message_order","param":null,"code":"3230"}',
        "Expected last role User or Tool",
        "invalid_request_message_order",
        "3230",
    ),
)
