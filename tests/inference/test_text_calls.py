"""Calls that a model writes as text are found, and everything else comes out as it was (P2)."""

import json
import logging
from collections.abc import Iterable, Sequence
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_bridge.inference.answer import Answer, Fragment, ModelCall, Part
from mcp_bridge.inference.text_calls import TextCalls
from mcp_bridge.types import Json

NAMES = ("add", "add_all", "weather")
ADD = '{"a": 1, "b": [2, {}]}'
HERMES = f'<tool_call>\n{{"name": "add", "arguments": {ADD}}}\n</tool_call>'
HERMES_TOO = '<tool_call>{"name": "weather", "parameters": {"city": "Bonn"}}</tool_call>'
QWEN = """<tool_call>
<function=weather>
<parameter=city>
Bonn
</parameter>
<parameter=note>
two
lines
</parameter>
</function>
</tool_call>"""

Found = list[tuple[str, Json | str, bool]]


def ids() -> Iterable[str]:
    return (f"call-{n}" for n in count())


def chunk(text: str) -> Json:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "x", "created": 1, "model": "m", "object": "chunk", "choices": [choice]}


def answer(
    text: str | None, reason: str | None = "stop", calls: tuple[ModelCall, ...] = ()
) -> Answer:
    message = {"role": "assistant", "content": text, "reasoning_content": "hm"}
    return Answer(message, calls, reason, envelope={"id": "x", "created": 1, "model": "m"})


def said(part: Part | None) -> str:
    chunks = part.read() if part else ()
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)


def streamed(
    pieces: Sequence[str], reason: str | None = "stop", calls: tuple[ModelCall, ...] = ()
) -> tuple[str, tuple[Fragment, ...], Answer]:
    """All text that was shown, the fragments, and the answer of a stream cut into these pieces."""
    minted = iter(ids())
    text_calls = TextCalls(NAMES, mint=lambda: next(minted))
    shown = [said(text_calls.chunks(Part((chunk(piece),)))) for piece in pieces]
    part, last = text_calls.finish(answer("".join(pieces), reason, calls))
    return "".join([*shown, said(part)]), part.fragments if part else (), last


def found(last: Answer) -> Found:
    return [(call.name, json.loads(call.arguments or "{}"), call.complete) for call in last.calls]


ADDED = ("add", json.loads(ADD), True)
BONN = ("weather", {"city": "Bonn"}, True)

FORMATS: dict[str, tuple[str, str | None, Found]] = {
    "hermes": (HERMES, None, [ADDED]),
    "hermes with text": (f"Let me see.\n{HERMES}", "Let me see.\n", [ADDED]),
    "hermes, unclosed": (HERMES.removesuffix("\n</tool_call>"), None, [ADDED]),
    "hermes, several": (f"{HERMES}\n{HERMES_TOO}\n", None, [ADDED, BONN]),
    "hermes, text between": (
        f"One {HERMES} two {HERMES_TOO} three.",
        "One  two  three.",
        [ADDED, BONN],
    ),
    "hermes, several in one": (
        f'<tool_call>{{"name":"add","arguments":{ADD}}}\n{{"name":"weather","arguments":{{}}}}</tool_call>',
        None,
        [ADDED, ("weather", {}, True)],
    ),
    "hermes, list": (
        f'<tool_call>[{{"name": "add", "arguments": {ADD}}}]</tool_call>',
        None,
        [ADDED],
    ),
    "hermes, arguments first": (
        '<tool_call>{"arguments": {"name": "nobody"}, "name": "add"}</tool_call>',
        None,
        [("add", {"name": "nobody"}, True)],
    ),
    "hermes, arguments as text": (
        '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Bonn\\"}"}</tool_call>',
        None,
        [BONN],
    ),
    "hermes, no arguments": ('<tool_call>{"name": "add"}</tool_call>', None, [("add", {}, True)]),
    "hermes, a brace too many": (HERMES.replace("\n</", "}\n</"), None, [ADDED]),
    "hermes, raw line break": (
        '<tool_call>{"name": "weather", "arguments": {"city": "Bo\nnn"}}</tool_call>',
        None,
        [("weather", {"city": "Bo\nnn"}, True)],
    ),
    "openai's shape": (
        '<tool_call>{"type": "function", "function": '
        f'{{"name": "add", "arguments": {ADD}}}}}</tool_call>',
        None,
        [ADDED],
    ),
    "qwen3-coder": (QWEN, None, [("weather", {"city": "Bonn", "note": "two\nlines"}, True)]),
    "qwen3-coder, no opening tag": (
        "I look.\n\n<function=weather>\n<parameter=city>\nBonn\n</parameter>\n</function>\n"
        "</tool_call>",
        "I look.\n\n",
        [BONN],
    ),
    "qwen3-coder, tags in a value": (
        "<function=weather><parameter=city><function=x>\n</function>\n</parameter></function>",
        None,
        [("weather", {"city": "<function=x>\n</function>"}, True)],
    ),
    "qwen3-coder, values unclosed": (
        "<function=weather>\n<parameter=city>\nBonn\n<parameter=n>\n1\n</function>",
        None,
        [("weather", {"city": "Bonn", "n": "1"}, True)],
    ),
    "qwen3-coder, no parameters": ("<function=add>\n</function>", None, [("add", {}, True)]),
    "invoke": (
        '<function_calls>\n<invoke name="weather">\n<parameter name="city">Bonn</parameter>\n'
        '</invoke>\n<invoke name="add"></invoke></function_calls>',
        None,
        [BONN, ("add", {}, True)],
    ),
    "invoke, bare": ('Hm. <invoke name="add"></invoke> Done', "Hm.  Done", [("add", {}, True)]),
    "mistral": (
        f'[TOOL_CALLS] [{{"name": "add", "arguments": {ADD}, "id": "123456789"}},'
        ' {"name": "weather", "arguments": {"city": "Bonn"}}]</s>',
        None,
        [ADDED, BONN],
    ),
    "mistral, tokenizer 11": (
        f'[TOOL_CALLS]add[ARGS]{ADD}[TOOL_CALLS]weather[CALL_ID]x1[ARGS]{{"city": "Bonn"}}',
        None,
        [ADDED, BONN],
    ),
    "llama 3": (
        f'<|python_tag|>{{"name": "add", "parameters": {ADD}}}; '
        '{"name": "weather", "parameters": {"city": "Bonn"}}<|eom_id|>',
        None,
        [ADDED, BONN],
    ),
    "llama 3, bare": (f'\n{{"name": "add", "parameters": {ADD}}}\n', None, [ADDED]),
    "llama 3, bare, with a type": (
        f'{{"type": "function", "name": "add", "parameters": {ADD}}}',
        None,
        [ADDED],
    ),
    "llama 3, bare, a brace missing": (f'{{"name": "add", "parameters": {ADD}', None, [ADDED]),
    "fenced": (f'```json\n{{"name": "add", "arguments": {ADD}}}\n```', None, [ADDED]),
    "fenced, no language": (f'\n```\n{{"name": "add", "arguments": {ADD}}}\n```\n', None, [ADDED]),
    "a longer name that begins like another": (
        "<function=add_all>\n</function>",
        None,
        [("add_all", {}, True)],
    ),
}

TEXTS = [
    "",
    "   ",
    "Hello.",
    '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>',
    "<tool_call>",
    '<tool_call>{"na',
    "In Hermes a call begins with <tool_call>, and then comes JSON.",
    "<function=unknown>\n</function>",
    "<function=ad",
    '<invoke name="unknown"></invoke>',
    "[TOOL_CALLS] none",
    "<|python_tag|>print(1)",
    '{"name": "Alice", "parameters": {}}',
    '{"name": "add", "price": 3}',
    '{"name": "add", "parameters": {}} is how I would call it.',
    '{"result": 42}',
    '[{"name": "add", "arguments": {}}]',
    '```json\n{"name": "add", "arguments": {}}\n```\nThat is the call.',
    '```python\nprint("<tool_call>")\n```',
    "a < b and <tool",
    "`",
    '<tool_call>["add"]</tool_call>',
    "<function_calls>none</function_calls>",
    '<tool_call>{"name" "add"}</tool_call>',
    '<tool_call>{"arguments": {}, "name": 5}</tool_call>',
    '<tool_call>{"arguments": {a}, "name": "add"}</tool_call>',
    '<tool_call>{"id": 1, "name": "unknown"}</tool_call>',
    '[TOOL_CALLS][{"name": "add"}, {"name": "unknown"}]',
    "[TOOL_CALLS]add[CALL_ID]%",
]


@pytest.mark.parametrize("name", FORMATS)
def test_calls_are_found_in_every_format(name: str) -> None:
    text, content, calls = FORMATS[name]
    shown, fragments, last = streamed([text])
    assert found(last) == calls
    assert last.message == {"role": "assistant", "content": content, "reasoning_content": "hm"}
    assert shown == (content or "")
    assert [(f.position, f.id, f.name, f.arguments) for f in fragments] == [
        (n, f"call-{n}", call.name, call.arguments) for n, call in enumerate(last.calls)
    ]
    assert [call.id for call in last.calls] == [f.id for f in fragments]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_no_call_comes_out_unchanged(text: str) -> None:
    shown, fragments, last = streamed([text])
    assert (shown, fragments, last) == (text, (), answer(text))


@pytest.mark.parametrize("text", [*(text for text, _, _ in FORMATS.values()), *TEXTS])
def test_it_does_not_matter_where_a_stream_is_cut(text: str) -> None:
    whole = streamed([text])
    assert streamed(list(text)) == whole
    for at in range(len(text)):
        assert streamed([text[:at], text[at:]]) == whole


def test_an_answer_that_was_not_streamed_gives_the_same() -> None:
    for text, _, _ in FORMATS.values():
        minted = iter(ids())
        part, last = TextCalls(NAMES, mint=lambda: next(minted)).finish(answer(text))  # noqa: B023
        assert (said(part), part.fragments if part else (), last) == streamed([text])


texts = st.lists(
    st.sampled_from(
        [
            *(text for text, _, _ in FORMATS.values()),
            *TEXTS,
            *("<tool_call>", "</tool_call>", "<function=", "add", ">", "{", '"name": "add"', "\n"),
            *(
                " " * 99,
                " " * 101,
                '{"name": "add", "arguments": {',
                "}",
                "[TOOL_CALLS]",
                "```json\n",
                "```",
                "é<",
                "]",
            ),
        ]
    ),
    max_size=4,
).map("".join)


@given(text=texts, cuts=st.lists(st.integers(0, 200), max_size=8), ended=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_text_in_any_pieces_gives_the_same(text: str, cuts: list[int], ended: bool) -> None:
    reason = "stop" if ended else "length"
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]
    shown, fragments, last = streamed(pieces, reason)
    assert (shown, fragments, last) == streamed([text], reason)
    assert shown == (last.message["content"] or "")
    if not last.calls:
        assert shown == text
    else:
        left = iter(text)
        assert all(character in left for character in shown), "text in its order"


# Live


def test_plain_text_passes_at_once() -> None:
    text_calls = TextCalls(NAMES)
    for piece in ["Hello", " <b>", " you", " [1]"]:
        part = Part((chunk(piece),))
        assert text_calls.chunks(part) == part


def test_what_may_begin_a_call_waits_until_it_is_known() -> None:
    text_calls = TextCalls(NAMES)
    shown = [
        said(text_calls.chunks(Part((chunk(piece),))))
        for piece in ["So <", "tool", "_call>", ' {"na', 'me": "wea', "pon", '", "a', "b"]
    ]
    assert shown == ["So ", "", "", "", "", '<tool_call> {"name": "weapon', '", "a', "b"]


def test_the_raw_call_is_never_shown() -> None:
    for name, (text, content, _) in FORMATS.items():
        text_calls = TextCalls(NAMES)
        parts = [text_calls.chunks(Part((chunk(character),))) for character in text]
        assert (content or "").startswith("".join(map(said, parts))), name


def test_white_space_without_end_passes() -> None:
    shown, _, last = streamed(["\n"] * 500 + [HERMES])
    assert shown == last.message["content"] == "\n" * 500
    assert found(last) == [ADDED]
    text_calls = TextCalls(NAMES)
    parts = [text_calls.chunks(Part((chunk("\n"),))) for _ in range(500)]
    assert len("".join(map(said, parts))) == 500


def test_reasoning_and_other_choices_pass() -> None:
    text_calls = TextCalls(NAMES)
    other = {**chunk("<tool_call>"), "choices": [{"index": 1, "delta": {"content": "<tool_call>"}}]}
    reasoning = {**chunk(""), "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}
    part = Part((other, reasoning), (Fragment(0, "i", "add", "{}"),))
    assert text_calls.chunks(part) == part


def test_a_chunk_that_also_says_something_else_keeps_that() -> None:
    both = chunk("<function=add>")
    both["choices"][0]["delta"]["reasoning_content"] = "hm"
    both["choices"][0]["logprobs"] = {"content": [{"token": "<function=add>"}]}
    part = TextCalls(NAMES).chunks(Part((both,)))
    assert part is not None
    assert part.read()[0]["choices"] == [
        {"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}
    ]


def test_what_is_given_out_at_the_end_is_a_chunk_of_the_same_answer() -> None:
    text_calls = TextCalls(NAMES)
    text_calls.chunks(Part((chunk("<func"),)))
    part, _ = text_calls.finish(answer("<func"))
    assert part is not None
    assert part.read() == ({**chunk("<func"), "object": "chat.completion.chunk"},)


# Decisions


def test_calls_that_the_server_found_win_and_the_text_stays() -> None:
    calls = (ModelCall("1", "add", "{}"),)
    shown, fragments, last = streamed(["a ", HERMES], calls=calls)
    assert shown == f"a {HERMES}"
    assert fragments == ()
    assert last == answer(f"a {HERMES}", calls=calls)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('<tool_call>{"name": "add", "arguments": {"a": 1', '{"a": 1'),
        ('<tool_call>{"name": "add", "argum', ""),
        ("<function=add>\n<parameter=a>\n12", '{"a":"12"}'),
        ('[TOOL_CALLS]add[ARGS]{"a": ', '{"a":'),
        ('{"name": "add", "parameters": {"a": ', '{"a":'),
    ],
)
def test_a_call_that_was_cut_is_never_complete(text: str, arguments: str) -> None:
    _, _, last = streamed([text], "length")
    assert [(c.name, c.arguments, c.complete) for c in last.calls] == [("add", arguments, False)]
    assert last.message["content"] is None


def test_a_whole_call_is_complete_even_when_the_answer_was_cut_after_it() -> None:
    _, _, last = streamed([f'{HERMES}<tool_call>{{"name": "add", "arguments": {{"a'], "length")
    assert [call.complete for call in last.calls] == [True, False]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('<tool_call>{"name": "add", "arguments": {\'a\': 1}}</tool_call>', "{'a': 1}}"),
        ('<tool_call>{"name": "add", a=1}</tool_call>', '{"name": "add", a=1}'),
    ],
)
def test_broken_json_goes_to_the_argument_check_and_never_becomes_no_arguments(
    text: str, arguments: str
) -> None:
    _, _, last = streamed([text])
    assert [(c.name, c.arguments, c.complete) for c in last.calls] == [("add", arguments, True)]
    with pytest.raises(ValueError):
        json.loads(arguments)


def test_without_names_everything_is_text() -> None:
    text_calls = TextCalls(())
    part = Part((chunk(HERMES),))
    assert text_calls.chunks(part) == part
    assert text_calls.finish(answer(HERMES)) == (None, answer(HERMES))


def test_an_answer_without_text_stays_as_it_is() -> None:
    assert TextCalls(NAMES).finish(answer(None)) == (None, answer(None))


def test_each_model_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    warned: set[str] = set()
    with caplog.at_level(logging.WARNING):
        for text in (HERMES, HERMES, "Hello"):
            TextCalls(NAMES, warned=warned).finish(answer(text))
    (record,) = caplog.records
    assert "'m'" in record.getMessage()
    assert "--jinja" in record.getMessage() and "--tool-call-parser" in record.getMessage()
    assert "Bonn" not in record.getMessage()
