"""From what a tool returned to what a model can read (L18-L20)."""

import base64
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.agent.convert import (
    FAILED_SILENTLY,
    NOTHING_RETURNED,
    Readable,
    cut,
    readable,
)
from mcp_bridge.types import Json

PNG = base64.b64encode(b"\x89PNG" + bytes(20)).decode()


def text(value: Any) -> Json:
    return {"type": "text", "text": value}


def image(data: str = PNG, mime: str = "image/png") -> Json:
    return {"type": "image", "data": data, "mimeType": mime}


def read(*content: Any, vision: bool = False, **fields: Any) -> Readable:
    return readable({"content": list(content), **fields}, vision=vision)


def shown(data: str, mime: str = "image/png") -> Json:
    return {"type": "image_url", "image_url": {"url": f"data:{mime};base64,{data}"}}


# Text


def test_text_blocks_are_joined_by_lines() -> None:
    assert read(text("one"), text("two")) == Readable("one\ntwo")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({}, NOTHING_RETURNED),
        ({"content": None}, NOTHING_RETURNED),
        ({"content": []}, NOTHING_RETURNED),
        ({"content": [text("")]}, NOTHING_RETURNED),
        ({"content": "just text"}, "just text"),
        ({"content": text("one block")}, "one block"),
        ({"content": ["a", text("b"), None, 5]}, "a\nb\n5"),
        ({"content": [{"text": "no type"}]}, "no type"),
        ({"content": [text({"a": 1})]}, '{"a":1}'),
        ({"content": [{"type": "hologram", "data": "AAAA", "x": 1}]}, '{"type":"hologram","x":1}'),
    ],
)
def test_content_is_read_however_the_server_spelled_it(result: Json, expected: str) -> None:
    assert readable(result, vision=False) == Readable(expected)


# Structured content (L19)


@pytest.mark.parametrize(
    ("content", "structured"),
    [
        (['{"a": 1, "b": [2]}'], {"b": [2], "a": 1}),
        (["Result:", '{"a": 1}'], {"a": 1}),
        (['{"a":', "1}"], {"a": 1}),
        (["5"], {"result": 5}),
        (["hello"], {"result": "hello"}),
        (["5"], {"result": "5"}),
        (["[1, 2]"], {"result": [1, 2]}),
        (["1", "2"], {"result": [1, 2]}),
        (["a", '{"b": 1}'], {"result": ["a", {"b": 1}]}),
        (['{"result": 5}'], {"result": 5}),
    ],
)
def test_structured_content_that_the_text_says_already_is_not_repeated(
    content: list[str], structured: Json
) -> None:
    found = read(*map(text, content), structuredContent=structured)
    assert found.text == "\n".join(content)


@pytest.mark.parametrize(
    ("content", "structured", "expected"),
    [
        ([], {"a": "ü"}, '{"a":"ü"}'),
        ([], {"result": []}, '{"result":[]}'),
        (["3 rows found"], {"rows": 3}, '3 rows found\n{"rows":3}'),
        (["1"], {"result": [1, 2]}, '1\n{"result":[1,2]}'),
        (["x"], [1], "x\n[1]"),
        (["x"], {"n": 2**70}, f'x\n{{"n":{2**70}}}'),
    ],
)
def test_structured_content_that_the_text_does_not_say_is_added(
    content: list[str], structured: Any, expected: str
) -> None:
    assert read(*map(text, content), structuredContent=structured).text == expected


# Errors (L19)


@pytest.mark.parametrize(
    ("content", "fields", "expected"),
    [
        ([text("no such file")], {}, "Error: no such file"),
        ([text("Error: no such file")], {}, "Error: no such file"),
        ([text("ERROR 5")], {}, "ERROR 5"),
        ([], {}, f"Error: {FAILED_SILENTLY}"),
        ([], {"structuredContent": {"code": 7}}, 'Error: {"code":7}'),
        ([text("no")], {"structuredContent": {"code": 7}}, 'Error: no\n{"code":7}'),
    ],
)
def test_an_error_is_told_as_one_in_its_own_words_first(
    content: list[Json], fields: Json, expected: str
) -> None:
    found = read(*content, isError=True, **fields)
    assert found == Readable(expected, is_error=True)


def test_only_true_is_an_error() -> None:
    assert not read(text("x"), isError="false").is_error
    assert not read(text("x"), isError=None).is_error


# Images, audio, resources (L18)


def test_a_model_that_sees_gets_the_image_and_a_word_about_it() -> None:
    found = read(text("a chart"), image(), vision=True)
    assert found.text == "a chart\n[image image/png: shown below]"
    assert found.images == (shown(PNG),)


def test_a_model_that_does_not_see_is_told_what_there_is() -> None:
    found = read(image())
    assert found == Readable("[image image/png, 24 bytes: it cannot be shown to this model]")


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (image(mime="image/jpg"), shown(PNG, "image/jpeg")),
        (image(mime="IMAGE/PNG; x=1"), shown(PNG)),
        (image(f"data:image/webp;base64,{PNG}"), shown(PNG, "image/webp")),
        (image(PNG[:10] + "\n" + PNG[10:]), shown(PNG)),
        (image("-_-_"), shown("+/+/")),
        ({"type": "image", "data": PNG}, shown(PNG)),
    ],
)
def test_an_image_is_shown_however_the_server_wrote_it(block: Json, part: Json) -> None:
    assert read(block, vision=True).images == (part,)


@pytest.mark.parametrize(
    "block",
    [
        image("not base64!"),
        image("AAA"),
        image("ü"),
        image(""),
        image(mime="image/svg+xml"),
        image(mime="image/tiff"),
        image(mime="text/plain"),
        {"type": "image", "data": None},
        {"type": "image", "mimeType": 5, "data": 6},
    ],
)
def test_an_image_that_would_fail_the_request_is_only_named(block: Json) -> None:
    found = read(block, vision=True)
    assert found.images == ()
    assert found.text.startswith("[image")


def test_audio_is_named() -> None:
    block = {"type": "audio", "data": "A" * 40, "mimeType": "audio/ogg"}
    expected = "[audio audio/ogg, 30 bytes: it cannot be shown to this model]"
    assert read(block, vision=True).text == expected


def resource(**fields: Any) -> Json:
    return {"type": "resource", "resource": fields}


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (resource(uri="notes://a", text="hello"), "[resource notes://a]\nhello"),
        (resource(text="hello"), "hello"),
        (
            resource(uri="x://b", blob="AAAA", mimeType="application/pdf"),
            "[resource x://b, application/pdf, 3 bytes: it cannot be shown as text]",
        ),
        (
            resource(uri="x://b", blob=PNG, mimeType="image/png"),
            "[resource x://b, image/png, 24 bytes: it cannot be shown as text]",
        ),
        (
            resource(uri="x://b"),
            "[resource x://b, application/octet-stream, 0 bytes: it cannot be shown as text]",
        ),
        ({"type": "resource"}, "[empty resource]"),
        ({"type": "resource_link", "uri": "x://c"}, "[resource x://c]"),
        (
            {"type": "resource_link", "uri": "x://c", "name": "c", "description": "The C."},
            "[resource x://c (c: The C.)]",
        ),
    ],
)
def test_resources_are_shown_or_named(block: Json, expected: str) -> None:
    assert read(block).text == expected


def test_an_image_resource_is_shown_to_a_model_that_sees() -> None:
    found = read(resource(uri="x://b", blob=PNG, mimeType="image/png"), vision=True)
    assert found == Readable("[resource x://b, image/png: shown below]", (shown(PNG),))


BASE64 = base64.b64encode(random.Random(1).randbytes(3000)).decode()
URL_SAFE = base64.urlsafe_b64encode(random.Random(2).randbytes(3001)).decode()


@pytest.mark.parametrize("vision", [False, True])
@pytest.mark.parametrize(
    "result",
    [
        {"content": [image(BASE64)]},
        {"content": [image(BASE64, "image/svg+xml")]},
        {"content": [{"type": "audio", "data": BASE64, "mimeType": "audio/wav"}]},
        {"content": [resource(uri="x://b", blob=BASE64, mimeType="image/png")]},
        {"content": [{"type": "video", "data": BASE64}]},
        {"content": [{"type": "video", "source": {"bytes": BASE64}}]},
        {"content": [], "structuredContent": {"files": [{"content": BASE64}]}},
        {"content": [], "structuredContent": {"url": f"data:image/png;base64,{BASE64}"}},
        {"content": [text("a file")], "structuredContent": {"b": URL_SAFE}},
    ],
)
def test_base64_never_becomes_text(result: Json, vision: bool) -> None:
    found = readable(result, vision=vision)
    assert BASE64[:50] not in found.text
    assert URL_SAFE[:50] not in found.text
    assert len(found.text) < 300


@pytest.mark.parametrize(
    "value", ["ACGT" * 500, "0123456789abcdef" * 100, "word " * 500, "Aa1" * 100, "Ab1.x/" * 300]
)
def test_long_texts_that_are_no_base64_stay_whole(value: str) -> None:
    assert value in read(structuredContent={"a": value}).text


def test_what_a_server_says_as_text_is_not_touched() -> None:
    assert read(text(BASE64)).text == BASE64


# Anything


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
FIELDS = st.sampled_from(
    "type text data mimeType resource uri blob name title content structuredContent isError".split()
)
BLOCKS = st.dictionaries(
    FIELDS,
    JSON | st.sampled_from(["text", "image", "audio", "resource", "resource_link"]),
    max_size=4,
)


@given(
    st.dictionaries(FIELDS, JSON | st.lists(BLOCKS | JSON, max_size=3), max_size=4), st.booleans()
)
def test_whatever_a_tool_returns_the_model_reads_some_text(result: Json, vision: bool) -> None:
    found = readable(result, vision=vision)
    assert found.text
    json.dumps(found.images)


def test_content_nested_without_end_is_read_too() -> None:
    deep: Any = {}
    for _ in range(1000):
        deep = {"a": deep}
    assert "too deeply" in read(structuredContent=deep).text
    assert read({"type": "x", "y": deep}).text
    assert read(text("{}"), structuredContent={"result": deep}).text


# Cutting (L20)


def test_a_cut_text_has_a_head_a_notice_and_a_tail() -> None:
    assert cut("0123456789", 5, lambda at: f"from {at}") == "0123\n\n[from 4]\n\n9"


@given(st.text(min_size=2, max_size=200), st.integers(1, 199))
def test_the_notice_names_exactly_where_the_head_ends(whole: str, cap: int) -> None:
    if cap >= len(whole):
        return
    offsets: list[int] = []
    said = cut(whole, cap, lambda at: offsets.append(at) or "NOTICE")  # type: ignore[func-returns-value]  # append gives None
    (head_ends,) = offsets
    head, tail = said.split("\n\n[NOTICE]\n\n", 1)
    assert head == whole[:head_ends]
    assert whole.endswith(tail)
    assert len(head) <= cap * 4 // 5
