"""What a server asks a model, as a chat request; and what the model says, as a result."""

from typing import Any

import pytest
from mcp_types import CreateMessageResult, CreateMessageResultWithTools

from mcp_bridge.agent.create_message import BadAnswer, BadRequest, Request, chat_body, result_of
from mcp_bridge.inference.answer import Answer, ModelCall
from mcp_bridge.types import Json

PIXEL = "iVBORw0KGgo="
ADD: Json = {
    "name": "math/add",
    "description": "Adds.",
    "inputSchema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}


def text(value: str) -> Json:
    return {"type": "text", "text": value}


def user(*content: Json) -> Json:
    return {"role": "user", "content": content[0] if len(content) == 1 else list(content)}


def assistant(*content: Json) -> Json:
    return {"role": "assistant", "content": list(content)}


def use(id: str, **arguments: Any) -> Json:
    return {"type": "tool_use", "id": id, "name": "math/add", "input": arguments}


def tool_result(id: str, **more: Any) -> Json:
    return {"type": "tool_result", "toolUseId": id, "content": [text("3")], **more}


def asked(*messages: Json, **params: Any) -> Request:
    given = list(messages) or [user(text("hi"))]
    return Request.of({"messages": given, "maxTokens": 100, **params})


def body(request: Request, *, vision: bool = True) -> Json:
    return chat_body(request, "m", 50, vision=vision, profile="openai")


def messages(*given: Json, vision: bool = True, **params: Any) -> list[Json]:
    found = body(asked(*given, **params), vision=vision)["messages"]
    assert isinstance(found, list)
    return found


def test_a_plain_question_becomes_the_smallest_request() -> None:
    assert body(asked(user(text("hi")))) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 50,
        "stream": False,
    }


def test_what_the_server_sets_is_passed_on_and_the_rest_is_left_out() -> None:
    request = asked(
        systemPrompt="Be brief.",
        temperature=0.2,
        stopSequences=["a", "b", "c", "d", "e"],
        includeContext="allServers",
        metadata={"secret": 1},
        modelPreferences={"speedPriority": 1},
    )
    made = body(request)
    assert made["messages"][0] == {"role": "system", "content": "Be brief."}
    assert made["temperature"] == 0.2
    assert made["stop"] == ["a", "b", "c", "d"]
    assert made.keys() == {"model", "messages", "max_tokens", "stream", "temperature", "stop"}


def test_images_and_audio_are_shown_to_a_model_that_sees() -> None:
    image = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
    audio = {"type": "audio", "data": "UklGRg==", "mimeType": "audio/x-wav"}
    assert messages(user(text("look"), image, audio)) == [
        {
            "role": "user",
            "content": [
                text("look"),
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
            ],
        }
    ]


def test_a_model_that_does_not_see_is_told_what_the_image_is() -> None:
    image = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
    content = messages(user(text("look"), image), vision=False)[0]["content"]
    assert content.startswith("look\n[image image/png")
    assert PIXEL not in content


def test_an_assistants_image_is_named_for_no_api_takes_it() -> None:
    image = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
    content = messages(user(text("draw")), assistant(image), user(text("more")))[1]["content"]
    assert content.startswith("[image image/png")


def test_a_conversation_with_tools_becomes_calls_and_tool_messages() -> None:
    found = messages(
        user(text("1 + 2?")),
        assistant(text("Adding."), use("u1", a=1), use("u2", a=2)),
        user(tool_result("u2", isError=True), tool_result("u1", structuredContent={"sum": 3})),
        tools=[ADD],
    )
    call = {"type": "function", "function": {"name": "math_add", "arguments": '{"a":1}'}}
    assert found[1:] == [
        {
            "role": "assistant",
            "content": "Adding.",
            "tool_calls": [
                {"id": "u1", **call},
                {"id": "u2", **call, "function": {"name": "math_add", "arguments": '{"a":2}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "u2", "content": "Error: 3"},
        {"role": "tool", "tool_call_id": "u1", "content": '3\n{"sum":3}'},
    ]


def test_images_in_tool_results_follow_in_a_message_of_the_user() -> None:
    image = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
    found = messages(
        user(text("draw")),
        assistant(use("u1")),
        user(tool_result("u1", content=[image])),
        tools=[ADD],
    )
    assert found[1]["content"] is None
    assert [m["role"] for m in found] == ["user", "assistant", "tool", "user"]
    assert found[3]["content"][1]["type"] == "image_url"


def test_offered_tools_get_names_that_model_apis_take() -> None:
    twin = {"name": "math_add", "inputSchema": {"type": "object"}}
    made = body(asked(tools=[ADD, twin], toolChoice={"mode": "required"}))
    names = [tool["function"]["name"] for tool in made["tools"]]
    assert names[0] == "math_add"
    assert names[1].startswith("math_add_")
    assert made["tools"][0]["function"]["description"] == "Adds."
    assert made["tools"][0]["function"]["parameters"]["properties"] == {"a": {"type": "integer"}}
    assert made["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"messages": "hi", "maxTokens": 5}, "messages must be"),
        ({"messages": ["hi"], "maxTokens": 5}, "messages must be"),
        ({"messages": []}, "maxTokens must be"),
        ({"messages": [], "maxTokens": 0}, "maxTokens must be"),
        ({"messages": [], "maxTokens": True}, "maxTokens must be"),
        ({"messages": [], "maxTokens": 5, "tools": [{}]}, "tools"),
        ({"messages": [assistant(use("u"))], "maxTokens": 5}, "no results"),
        ({"messages": [assistant(use("u")), user(text("?"))], "maxTokens": 5}, "answered"),
        (
            {"messages": [assistant(use("u")), user(tool_result("v"))], "maxTokens": 5},
            "answered",
        ),
        ({"messages": [user(tool_result("v"))], "maxTokens": 5}, "answered"),
        (
            {
                "messages": [assistant(use("u")), user(tool_result("u"), text("and"))],
                "maxTokens": 5,
            },
            "mixed",
        ),
        (
            {
                "messages": [assistant(use("u")), user(tool_result("u"), tool_result("u"))],
                "maxTokens": 5,
            },
            "one result",
        ),
    ],
)
def test_requests_that_break_the_rules_are_refused_with_the_rule(params: Json, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        Request.of(params)


def said(content: str | None, *calls: ModelCall, **more: Any) -> Answer:
    return Answer({"role": "assistant", "content": content}, calls, **more)


@pytest.mark.parametrize(
    ("answer", "stops", "words", "reason"),
    [
        (said("hi", finish_reason="stop"), [], "hi", "endTurn"),
        (said("hi"), [], "hi", "endTurn"),
        (said("hi", finish_reason="length"), [], "hi", "maxTokens"),
        (said("hi", finish_reason="content_filter"), [], "hi", "contentFilter"),
        (said(None, finish_reason="stop"), [], "", "endTurn"),
        (said("one END two", finish_reason="stop"), ["?", "END"], "one ", "stopSequence"),
        (said("a", finish_reason="stop", choice={"stop_reason": "END"}), ["END"], "a", None),
        (said("a", finish_reason="stop", choice={"matched_stop": "END"}), ["END"], "a", None),
        (
            said("a", finish_reason="stop", choice={"stop_reason": 128009}),
            ["END"],
            "a",
            "endTurn",
        ),
        (Answer({"role": "assistant", "content": None, "refusal": "No."}), [], "No.", "endTurn"),
    ],
)
def test_the_answer_is_one_text_and_why_it_ended(
    answer: Answer, stops: list[str], words: str, reason: str | None
) -> None:
    result = result_of(answer, asked(stopSequences=stops), "m")
    assert result == {
        "role": "assistant",
        "content": text(words),
        "model": "m",
        "stopReason": reason or "stopSequence",
    }
    CreateMessageResult.model_validate(result)


def test_the_model_that_really_answered_is_named() -> None:
    answer = said("hi", envelope={"model": "m-2026"})
    assert result_of(answer, asked(), "m")["model"] == "m-2026"


def test_calls_of_the_servers_tools_go_back_under_their_own_names() -> None:
    call = ModelCall("c1", "math_add", '{"a": 1}', extra={"extra_content": {"sig": "x"}})
    request = asked(tools=[ADD])
    result = result_of(said("Adding.", call, finish_reason="tool_calls"), request, "m")
    assert result["stopReason"] == "toolUse"
    first, second = result["content"]
    assert first == text("Adding.")
    assert (second["name"], second["input"]) == ("math/add", {"a": 1})
    CreateMessageResultWithTools.model_validate(result)
    # The signature comes back with the history, and reaches the model again.
    back = messages(user(text("?")), assistant(second), user(tool_result("c1")), tools=[ADD])
    assert back[1]["tool_calls"][0]["extra_content"] == {"sig": "x"}


@pytest.mark.parametrize(
    "request_",
    [asked(), asked(tools=[ADD], toolChoice={"mode": "none"})],
    ids=["no tools", "tools that must not be used"],
)
def test_calls_that_the_server_did_not_allow_are_not_handed_to_it(request_: Request) -> None:
    call = ModelCall("c1", "math_add", "{}")
    result = result_of(said("hi", call, finish_reason="tool_calls"), request_, "m")
    assert (result["content"], result["stopReason"]) == (text("hi"), "endTurn")


def test_a_call_that_was_cut_is_not_handed_out() -> None:
    call = ModelCall("c1", "math_add", '{"a": ', complete=False)
    result = result_of(said("hm", call, finish_reason="length"), asked(tools=[ADD]), "m")
    assert (result["content"], result["stopReason"]) == (text("hm"), "maxTokens")


def test_arguments_that_are_no_json_are_an_error() -> None:
    call = ModelCall("c1", "math_add", "a=1")
    with pytest.raises(BadAnswer, match="math/add"):
        result_of(said(None, call), asked(tools=[ADD]), "m")
