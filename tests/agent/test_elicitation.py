"""What a server asks the user, as text; and what the user's message means."""

from typing import Any

import anyio
import pytest
from mcp_types import ElicitResult

from mcp_bridge.agent.elicitation import (
    Elicitor,
    Question,
    Unclear,
    number_in,
    question_text,
    read_answer,
    text_of,
)
from mcp_bridge.errors import SourceRefused
from mcp_bridge.types import Json
from tests.mcp_client.running import PATIENCE


def form(required: list[str] | None = None, **properties: Json) -> Json:
    schema: Json = {"type": "object", "properties": properties}
    if required is not None:
        schema["required"] = required
    return {"message": "Who are you?", "requestedSchema": schema}


TEXT: Json = {"type": "string"}
AGE: Json = {"type": "integer", "minimum": 0, "maximum": 150}
SURE: Json = {"type": "boolean"}
COLOUR: Json = {"type": "string", "enum": ["red", "green"]}
TITLED: Json = {
    "type": "string",
    "oneOf": [{"const": "r", "title": "Red"}, {"const": "g", "title": "Green"}],
}
OLD_TITLED: Json = {"type": "string", "enum": ["r", "g"], "enumNames": ["Red", "Green"]}
SEVERAL: Json = {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "maxItems": 1}
LINK: Json = {"mode": "url", "message": "Log in", "url": "https://login.example/x?state=1"}
PERSON = form(["name", "age"], name={**TEXT, "title": "Full name"}, age=AGE, colour=COLOUR)


def accept(**content: Any) -> Json:
    return {"action": "accept", "content": content}


@pytest.mark.parametrize(
    ("params", "said", "result"),
    [
        (form(name=TEXT), "Ada", accept(name="Ada")),
        (form(name=TEXT), "  Ada Lovelace\n", accept(name="Ada Lovelace")),
        (form(name=TEXT), "name: Ada", accept(name="Ada")),
        (form(name=TEXT), "no", accept(name="no")),
        (form(name=TEXT), "", accept(name="")),
        (form(when=TEXT), "at 10:30", accept(when="at 10:30")),
        (form(age=AGE), "36", accept(age=36)),
        (form(age={"type": "number"}), "1.5", accept(age=1.5)),
        (form(sure=SURE), "Yes.", accept(sure=True)),
        (form(sure=SURE), "no", accept(sure=False)),
        (form(colour=COLOUR), "RED", accept(colour="red")),
        (form(colour=TITLED), "green", accept(colour="g")),
        (form(colour=TITLED), "g", accept(colour="g")),
        (form(colour=OLD_TITLED), "Red", accept(colour="r")),
        (form(tags=SEVERAL), "B", accept(tags=["b"])),
        (form(tags=SEVERAL), '["a"]', accept(tags=["a"])),
        (form(what={"enum": ["retry", "cancel"]}), "cancel", accept(what="cancel")),
        (form(["name"], name=TEXT, age=AGE), "Ada", accept(name="Ada")),
        (
            form(name=TEXT, size={"type": "integer", "default": 3}),
            "name: x",
            accept(name="x", size=3),
        ),
        (PERSON, "name: Ada\nage: 36", accept(name="Ada", age=36)),
        (PERSON, "- **Full name**: Ada\n- `age` = 36", accept(name="Ada", age=36)),
        (
            PERSON,
            "Name: Ada\nof London\nAge: 36\nColour: Green",
            accept(name="Ada\nof London", age=36, colour="green"),
        ),
        (PERSON, '{"name": "Ada", "age": "36", "shoe": 9}', accept(name="Ada", age=36)),
        (PERSON, '```json\n{"name": "Ada", "age": 36}\n```', accept(name="Ada", age=36)),
        (PERSON, "Cancel.", {"action": "cancel"}),
        (PERSON, "no thanks", {"action": "decline"}),
        (form(), "yes", accept()),
        (form(), "no", {"action": "decline"}),
        (LINK, "done", {"action": "accept"}),
        (LINK, "no", {"action": "decline"}),
        (LINK, "cancel", {"action": "cancel"}),
    ],
)
def test_a_message_is_the_answer_that_a_person_means(params: Json, said: str, result: Json) -> None:
    assert read_answer(said, params) == result
    ElicitResult.model_validate(result)


@pytest.mark.parametrize(
    ("params", "said", "words"),
    [
        (PERSON, "Ada, 36", 'such as "name: …"'),
        (PERSON, "name: Ada", "'age' is a required property"),
        (PERSON, "name: Ada\nage: many", "age: 'many' is not a number"),
        (PERSON, "name: Ada\nage: 200", "age: 200 is greater than"),
        (PERSON, "name: Ada\nage: 1.5", "age: 1.5 is not of type 'integer'"),
        (PERSON, "name: Ada\nage: 36\ncolour: mauve", "colour: 'mauve' is not one of"),
        (PERSON, '{"name": ', "not JSON"),
        (form(sure=SURE), "maybe", 'sure: please answer "yes" or "no"'),
        (form(mail={"type": "string", "format": "email"}), "nobody", "mail: 'nobody' is not"),
        (form(), "hm", 'please answer "yes"'),
        (LINK, "what is this?", 'please answer "yes"'),
    ],
)
def test_what_is_no_answer_says_what_is_wrong(params: Json, said: str, words: str) -> None:
    with pytest.raises(Unclear) as caught:
        read_answer(said, params)
    assert words in str(caught.value)


def test_the_question_lists_the_fields_and_says_who_asks() -> None:
    question = Question("crm", PERSON)
    assert question_text(question) == (
        "**crm** asks: Who are you?\n"
        "\n"
        "- `name` (text): Full name\n"
        "- `age` (whole number, 0 to 150)\n"
        "- `colour` (one of red | green, optional)\n"
        "\n"
        'Answer with a line such as "name: value" for each, or with JSON; or "cancel".\n'
        f"(question {question.number})"
    )


def test_the_question_says_what_each_kind_of_field_takes() -> None:
    text = question_text(
        Question(
            "crm",
            form(
                ["mail"],
                mail={"type": "string", "format": "email", "description": "We write there."},
                tags=SEVERAL,
                colour=TITLED,
                sure={**SURE, "default": False},
                nick={**TEXT, "maxLength": 9},
                any={"type": "array"},
            ),
        )
    )
    assert "- `mail` (email): We write there." in text
    assert "- `tags` (any of a | b, with commas between, optional, at most 1 of them)" in text
    assert "- `colour` (one of Red | Green, optional)" in text
    assert "- `sure` (yes or no, optional, otherwise false)" in text
    assert "- `nick` (text, optional, at most 9 characters)" in text
    assert "- `any` (a list, optional)" in text
    assert 'Answer with the value, or "cancel".' in text


def test_a_link_is_shown_with_its_host_and_never_opened() -> None:
    text = question_text(Question("crm", LINK))
    assert "**crm** asks: Log in" in text
    assert "**login.example**" in text
    assert "<https://login.example/x?state=1>" in text


def test_asking_again_begins_with_what_was_wrong() -> None:
    question = Question("crm", PERSON)
    again = question_text(question, "age: 200 is too much.")
    assert again.startswith("That does not fit: age: 200 is too much.\n\n**crm** asks:")


@pytest.mark.parametrize(
    ("content", "number"),
    [
        ("Which?\n(question 00ff)", "00ff"),
        (
            [{"type": "text", "text": "Which?"}, {"type": "text", "text": "(question 00ff) "}],
            "00ff",
        ),
        ("(question 00ff) was asked before", None),
        ("Which?", None),
        (None, None),
        ([{"type": "image_url"}, "?"], None),
    ],
)
def test_a_question_is_known_again_by_its_number(content: object, number: str | None) -> None:
    assert number_in(text_of({"role": "assistant", "content": content})) == number


def test_two_equal_questions_have_different_texts() -> None:
    assert question_text(Question("crm", PERSON)) != question_text(Question("crm", PERSON))


# Asking


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("sampling/createMessage", {}),
        ("elicitation/create", {"message": "Hi"}),
        ("elicitation/create", {"message": "Hi", "requestedSchema": {"properties": []}}),
        ("elicitation/create", {**LINK, "url": "file:///etc/passwd"}),
        ("elicitation/create", {**LINK, "url": "javascript:alert(1)"}),
        ("elicitation/create", {"mode": "url", "message": "Hi"}),
    ],
)
async def test_what_cannot_be_asked_in_a_chat_is_refused_at_once(method: str, params: Json) -> None:
    put: list[Question] = []
    with pytest.raises(SourceRefused), anyio.fail_after(PATIENCE):
        await Elicitor(put.append).answer("x", method, params)
    assert put == []


async def test_the_server_gets_what_the_user_answered() -> None:
    def answer(question: Question) -> None:
        question.answer(read_answer("Ada", question.params))

    elicitor = Elicitor(answer)
    with anyio.fail_after(PATIENCE):
        result = await elicitor.answer("x", "elicitation/create", form(name=TEXT))
    assert result == accept(name="Ada")
