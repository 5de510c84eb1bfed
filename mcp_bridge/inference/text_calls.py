"""Tool calls that a model writes as text (P2), for models that are configured so.

Some servers do not parse the calls of a model: a chat template is missing, or `--jinja`, or
`--tool-call-parser`. The calls then arrive as content. Read here are:

    <tool_call>{"name": …, "arguments": {…}}</tool_call>            Hermes, Qwen
    <function=name><parameter=x>…</parameter></function>            Qwen3-Coder
    <invoke name="name"><parameter name="x">…</parameter></invoke>  Claude, MiniMax
    [TOOL_CALLS][{"name": …, "arguments": {…}}]                     Mistral, also name[ARGS]{…}
    <|python_tag|>{"name": …, "parameters": {…}}                    Llama 3
    {"name": …, "parameters": {…}}                                  as the whole message, bare or
                                                                    in a ```json fence

Theory of operation. What a text holds is decided once, at its end, on the whole of it, so that it
does not matter how it was cut. While it streams there is one question: how far is it surely plain?
That is up to the first place where a call of a known tool begins, or may begin. The beginning
(`_head`) is all that decides; from there on everything is held back. At the end the calls are
taken out, and what turned out to be none is given out as text. White space between calls, and
before them when there is nothing else, belongs to them.
"""

import json
import logging
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

from mcp_bridge.exact import dumps
from mcp_bridge.inference.answer import Answer, Fragment, ModelCall, Part
from mcp_bridge.inference.calls import mint_id
from mcp_bridge.types import Json, frozen

logger = logging.getLogger(__name__)

OPENERS = (
    "<tool_call>",
    "<function=",
    "<function_calls>",
    "<invoke name=",
    "[TOOL_CALLS]",
    "<|python_tag|>",
)
OPENER = re.compile("|".join(map(re.escape, OPENERS)))
CLOSERS = re.compile(
    r"(?:[\s}\]]*</tool_call>)?"
    r"(?:\s*(?:</tool_call>|</function>|</function_calls>|<\|eo[mt]_id\|>|<\|im_end\|>|</s>))*"
)
"""What may follow a call and belongs to it, also where the opening tag was left out."""
KEYS = ("name", "arguments", "parameters", "type", "function", "id")
"""The keys of a call as JSON. One that begins with another is none."""
FENCES = ("json\n", "tool_call\n", "tool_calls\n", "\n")

NAME_FIRST = re.compile(
    r'\s*\{\s*"name"\s*:\s*"(?P<name>[^"\\]*)"\s*'
    r'(?:,\s*"(?:arguments|parameters)"\s*:\s*(?P<arguments>.*))?',
    re.DOTALL,
)
MARGIN = re.compile(r"\s{0,100}")
"""White space around the parts of a call. Models that have lost their way write it without end."""
LIST_BEGINS = re.compile(r"\s*\[?\s*")
NEXT_OBJECT = re.compile(r"\s*[,;]?\s*(?=\{)")
LIST_ENDS = re.compile(r"(?:\s*\])?")
MISTRAL = re.compile(r"\s*(?P<name>[^\s\[{]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?=\{)")
TAG = re.compile(r'\s*(?:<function_calls>\s*)?<(?:function=|invoke name=")(?P<name>[^">]*)"?>')
TAG_ENDS = re.compile(r"\s*(?:</parameter>\s*)?(?:</(?:function|invoke)>|(?=</tool_call>))")
PARAMETER = re.compile(r"""\s*<parameter(?:=|\s+name=)["']?(?P<name>[^"'>]+)["']?\s*>""")
VALUE_ENDS = re.compile(
    r"</parameter>(?=\s*(?:<parameter[=\s]|</function>|</invoke>|</tool_call>|\Z))"
    r"|(?=\n[ \t]{0,40}<parameter[=\s])"
)
"""Values may hold such tags themselves, so the closing one is that before another of ours."""
VALUE_STOPS = re.compile(r"(?=</function>|</invoke>|</tool_call>)|\Z")
SAME_IN_ALL_CHUNKS = frozenset({"id", "created", "model"})
DECODER = json.JSONDecoder(strict=False)
"""Lets raw line breaks in strings pass, which models write."""


class TextCalls:
    """The calls in the text of one answer.

    `names` are the tools that were offered; other names are text. `warned` holds the models that
    the log has already warned of: share it between the answers of a server.
    """

    def __init__(
        self,
        names: Collection[str],
        *,
        warned: set[str] | None = None,
        mint: Callable[[], str] = mint_id,
    ) -> None:
        self._names = frozenset(names)
        self._warned = set() if warned is None else warned
        self._mint = mint
        self._held = ""
        self._given = 0
        """How much of the text has been given out."""
        self._begun = False
        """A call has begun: the rest is held until the end."""

    def chunks(self, part: Part) -> Part | None:
        """The part with only such text as is surely none of a call; None when nothing is left."""
        shown = tuple(chunk for chunk in map(self._shown, part.read()) if chunk is not None)
        return Part(shown, part.fragments) if shown or part.fragments else None

    def finish(self, answer: Answer) -> tuple[Part | None, Answer]:
        """What is left to show, and the answer with the calls that were found.

        Calls that the server itself found win: then the text stays as it is.
        """
        content = answer.message.get("content")
        text = content if isinstance(content, str) else ""
        cut = answer.finish_reason in (None, "length", "content_filter")
        said, found = (text, []) if answer.calls else _split(text, self._names, cut)
        if found:
            self._warn(answer)
            answer = replace(
                answer,
                message={**answer.message, "content": said or None},
                calls=tuple(
                    ModelCall(self._mint(), c.name, c.arguments, c.complete) for c in found
                ),
            )
        fragments = tuple(
            Fragment(n, call.id, call.name, call.arguments)
            for n, call in enumerate(answer.calls if found else ())
        )
        rest = said[self._given :]
        chunks = (_chunk(answer, rest),) if rest else ()
        return (Part(chunks, fragments) if chunks or fragments else None), answer

    def _shown(self, chunk: Json) -> Json | None:
        choice = chunk["choices"][0]
        delta = choice.get("delta", {})
        content = delta.get("content")
        if not isinstance(content, str) or choice.get("index") not in (0, None):
            return chunk
        text = self._plain(content)
        if text == content:
            return chunk
        left = {key: value for key, value in delta.items() if key != "content"}
        if text:
            left["content"] = text
        if not left:
            return None
        # The logprobs would tell what is held back.
        kept = {key: value for key, value in choice.items() if key != "logprobs"}
        return {**chunk, "choices": [{**kept, "delta": left}]}

    def _plain(self, new: str) -> str:
        """What can be given out, now that this text has come."""
        if self._begun:
            return ""
        text = self._held + new
        plain, self._begun = _plain_until(text, self._names, is_start=self._given == 0)
        self._held = text[plain:]
        self._given += plain
        return text[:plain]

    def _warn(self, answer: Answer) -> None:
        model = str(answer.envelope.get("model", ""))
        if model not in self._warned:
            self._warned.add(model)
            logger.warning(
                "model %r writes tool calls as text: fix its chat template, or start its server "
                "with a tool parser (llama.cpp: --jinja, vLLM: --tool-call-parser)",
                model,
            )


def _chunk(answer: Answer, text: str) -> Json:
    made = {key: value for key, value in answer.envelope.items() if key in SAME_IN_ALL_CHUNKS}
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return made | {"object": "chat.completion.chunk", "choices": [choice]}


# While it streams


def _plain_until(text: str, names: Collection[str], *, is_start: bool) -> tuple[int, bool]:
    """How far a text is surely plain, and whether a call surely begins there."""
    if is_start and (verdict := _verdict(_whole_head, text, 0, names)) != "text":
        return 0, verdict == "call"
    plain, begun = _opener_at(text, names)
    return (0 if is_start and MARGIN.fullmatch(text, 0, plain) else plain), begun


def _opener_at(text: str, names: Collection[str]) -> tuple[int, bool]:
    at = 0
    while opener := OPENER.search(text, at):
        if (verdict := _verdict(_head, text, opener.start(), names)) != "text":
            return opener.start(), verdict == "call"
        at = opener.end()
    return len(text) - _half_opener(text[at:]), False


def _half_opener(text: str) -> int:
    """The length of the end that may be the beginning of an opener."""
    longest = min(len(text), max(map(len, OPENERS)) - 1)
    ends = (n for n in range(longest, 0, -1) if any(o.startswith(text[-n:]) for o in OPENERS))
    return next(ends, 0)


class _More(Exception):
    """The text ended before it could be told."""


class _Cursor:
    """A place in a text that may still grow."""

    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at

    def space(self) -> None:
        if space := MARGIN.match(self.text, self.at):
            self.at = space.end()

    def takes(self, literal: str) -> bool:
        """Whether this comes next; it is passed over then.

        Raises:
            _More: the text ends before.
        """
        if self.text.startswith(literal, self.at):
            self.at += len(literal)
            return True
        if literal.startswith(self.text[self.at :]):
            raise _More
        return False

    def one_of(self, words: Collection[str], end: str = "") -> str | None:
        """The longest of these words that comes next, with what has to follow it."""
        rest = self.text[self.at :]
        found = [word for word in words if rest.startswith(word + end)]
        if found:
            longest = max(found, key=len)
            self.at += len(longest + end)
            return longest
        if any((word + end).startswith(rest) for word in words):
            raise _More
        return None


Head = Callable[[_Cursor, Collection[str]], bool]


def _verdict(head: Head, text: str, at: int, names: Collection[str]) -> str:
    """Whether a call begins here: "call", "text", or "more" has to come before it can be told."""
    try:
        return "call" if head(_Cursor(text, at), names) else "text"
    except _More:
        return "more"


def _whole_head(cursor: _Cursor, names: Collection[str]) -> bool:
    """The beginning of a message that is a call as a whole."""
    cursor.space()
    if cursor.takes("```") and cursor.one_of(FENCES) is None:
        return False
    return _json_head(cursor, names)


def _head(cursor: _Cursor, names: Collection[str]) -> bool:
    """The beginning of a call, from its opener to its name."""
    match cursor.one_of(OPENERS):
        case "<function=":
            return cursor.one_of(names, ">") is not None
        case "<invoke name=":
            return cursor.takes('"') and cursor.one_of(names, '"') is not None
        case "<function_calls>":
            cursor.space()
            return cursor.takes("<invoke ") and _invoke_head(cursor, names)
        case "[TOOL_CALLS]":
            return _mistral_head(cursor, names)
        case "<tool_call>":
            cursor.space()
            if cursor.takes("<function="):
                return cursor.one_of(names, ">") is not None
            cursor.takes("[")
    return _json_head(cursor, names)


def _invoke_head(cursor: _Cursor, names: Collection[str]) -> bool:
    return cursor.takes('name="') and cursor.one_of(names, '"') is not None


def _mistral_head(cursor: _Cursor, names: Collection[str]) -> bool:
    cursor.space()
    if cursor.takes("[") or cursor.text.startswith("{", cursor.at):
        return _json_head(cursor, names)
    ends = [name + end for name in names for end in ("[ARGS]", "[CALL_ID]", "{")]
    return cursor.one_of(ends) is not None


def _json_head(cursor: _Cursor, names: Collection[str]) -> bool:
    cursor.space()
    if not cursor.takes("{"):
        return False
    cursor.space()
    key = cursor.one_of([f'"{key}"' for key in KEYS])
    if key != '"name"':
        return key is not None
    cursor.space()
    if not cursor.takes(":"):
        return False
    cursor.space()
    return cursor.one_of([f'"{name}"' for name in names]) is not None


# At the end


@frozen
class _Call:
    name: str
    arguments: str
    complete: bool = True


@frozen
class _Block:
    """Calls that stand together, and where they end."""

    calls: list[_Call]
    end: int


@frozen
class _Reading:
    """One text that is read for calls. `cut`: it ended before the model was done."""

    text: str
    names: Collection[str]
    cut: bool

    def whole_message(self) -> _Block | None:
        """The calls that are the whole message, or None."""
        if _verdict(_whole_head, self.text, 0, self.names) != "call":
            return None
        body = self.text.strip()
        if body.startswith("```"):
            body = body.partition("\n")[2].removesuffix("```")
        block = replace(self, text=body).objects(0, bare=True)
        if block is None or body[block.end :].strip(" \t\r\n}]"):
            return None
        return _Block(block.calls, len(self.text))

    def block(self, opener: re.Match[str]) -> _Block | None:
        """The calls that begin at an opener, or None if it is text."""
        if _verdict(_head, self.text, opener.start(), self.names) != "call":
            return None
        match opener[0]:
            case "<function=" | "<invoke name=" | "<function_calls>":
                found = self.tag(opener.start())
            case "[TOOL_CALLS]":
                found = self.mistral(opener.end())
            case _:
                found = self.tag(opener.end()) or self.objects(opener.end())
        if found is None:
            return None
        closers = CLOSERS.match(self.text, found.end)
        return _Block(found.calls, closers.end() if closers else found.end)

    def tag(self, at: int) -> _Block | None:
        """`<function=name>…</function>` and `<invoke name="name">…</invoke>`."""
        opening = TAG.match(self.text, at)
        if opening is None or opening["name"] not in self.names:
            return None
        values: Json = {}
        at = opening.end()
        while parameter := PARAMETER.match(self.text, at):
            begin = parameter.end()
            ends = VALUE_ENDS.search(self.text, begin) or VALUE_STOPS.search(self.text, begin)
            stop, at = ends.span() if ends else (len(self.text), len(self.text))
            values[parameter["name"].strip()] = _value(self.text[begin:stop])
        closing = TAG_ENDS.match(self.text, at)
        call = _Call(opening["name"], dumps(values), closing is not None or not self.cut)
        return _Block([call], closing.end() if closing else at)

    def mistral(self, at: int) -> _Block | None:
        """`[{…}]`, or since its tokenizer 11 `name[ARGS]{…}`."""
        named = MISTRAL.match(self.text, at)
        if named is None or named["name"] not in self.names:
            return self.objects(at)
        arguments, end, closed = self.json_text(named.end(), len(self.text))
        return _Block([_Call(named["name"], arguments, closed or not self.cut)], end)

    def objects(self, at: int, *, bare: bool = False) -> _Block | None:
        """Calls as JSON objects, one after the other or in a list."""
        calls: list[_Call] = []
        following = LIST_BEGINS.match(self.text, at)
        while following:
            try:
                value, at = DECODER.raw_decode(self.text, following.end())
            except (ValueError, RecursionError):
                return self.broken_object(calls, following.end(), bare=bare)
            if (call := _call_of(value, self.names, bare=bare)) is None:
                return None
            calls.append(call)
            following = NEXT_OBJECT.match(self.text, at)
        ending = LIST_ENDS.match(self.text, at)
        return _Block(calls, ending.end() if ending else at)

    def broken_object(self, before: list[_Call], at: int, *, bare: bool) -> _Block | None:
        """A call whose JSON is not right or not whole: the name counts, and what is there."""
        closer = self.text.find("</tool_call>", at)
        end = closer if closer >= 0 else len(self.text)
        named = NAME_FIRST.match(self.text, at, end)
        if named is None or named["name"] not in self.names:
            return None
        complete = closer >= 0 or not self.cut
        if named["arguments"] is None:
            # Never empty arguments for broken ones: the tool would be called without any.
            arguments = self.text[at:end].strip() if complete else ""
            return (
                None if bare else _Block([*before, _Call(named["name"], arguments, complete)], end)
            )
        arguments, after, closed = self.json_text(named.start("arguments"), end)
        call = _Call(named["name"], arguments, complete or closed)
        return _Block([*before, call], after if bare else end)

    def json_text(self, at: int, end: int) -> tuple[str, int, bool]:
        """The JSON object that begins here, where it ends, and whether it is whole."""
        try:
            value, after = DECODER.raw_decode(self.text, at)
        except (ValueError, RecursionError):
            return self.text[at:end].strip(), end, False
        return _arguments(value), after, True


def _split(text: str, names: Collection[str], cut: bool) -> tuple[str, list[_Call]]:
    """The text without the calls in it, and the calls."""
    reading = _Reading(text, names, cut)
    if block := reading.whole_message():
        return "", block.calls
    blocks = list(_blocks(reading))
    if not blocks:
        return text, []
    ends = [0, *(block.end for _, block in blocks)]
    begins = [*(begin for begin, _ in blocks), len(text)]
    pieces = [text[end:begin] for end, begin in zip(ends, begins, strict=True)]
    if MARGIN.fullmatch(pieces[0]):
        pieces[0] = ""
    said = pieces[0] + "".join(piece for piece in pieces[1:] if piece.strip())
    return said, [call for _, block in blocks for call in block.calls]


def _blocks(reading: _Reading) -> Iterator[tuple[int, _Block]]:
    at = 0
    while opener := OPENER.search(reading.text, at):
        block = reading.block(opener)
        if block is not None:
            yield opener.start(), block
        at = opener.end() if block is None else block.end


def _call_of(value: Any, names: Collection[str], *, bare: bool) -> _Call | None:
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    said = inner if isinstance(inner, dict) else value
    name = said.get("name")
    if not isinstance(name, str) or name not in names:
        return None
    given = said.get("arguments", said.get("parameters"))
    if bare and (given is None or value.keys() - set(KEYS)):
        return None  # an answer in JSON that happens to have a tool's name in it
    return _Call(name, _arguments(given))


def _arguments(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case _:
            return dumps(value)


def _value(text: str) -> str:
    """A parameter's value; the line breaks around it are the format's."""
    return text.removeprefix("\n").removesuffix("\n")
