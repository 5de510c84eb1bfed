"""What a server asks the user (`elicitation/create`), in a plain chat: as text, and back.

The question becomes the assistant's message; the user's next message is the answer. `read_answer`
makes of it what the server wants: a field's value, `field: value` lines or JSON, checked against
the server's schema; or a refusal. Pure, but for `Elicitor`, which waits for the answer inside the
call that caused the question. How a conversation waits meanwhile is told in `agent/waiting.py`.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
import orjson
from mcp_types import INVALID_PARAMS, METHOD_NOT_FOUND

from mcp_bridge.errors import SourceRefused
from mcp_bridge.types import Json

YES = frozenset({"yes", "y", "ok", "okay", "sure", "true", "on", "accept", "done", "continue"})
NO = frozenset({"no", "n", "nope", "false", "off"})
DECLINE = frozenset({"decline", "reject", "refuse", "no thanks", "no, thanks", "no thank you"})
CANCEL = frozenset({"cancel", "abort", "stop", "quit", "never mind", "nevermind"})
CAPABILITY: Json = {"elicitation": {"form": {}, "url": {}}}
KINDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "yes or no"}
FENCE = re.compile(r"\A```\w*\n(.*)\n```\Z", re.DOTALL)
NUMBER = re.compile(r"\(question ([0-9a-f]+)\)\s*\Z")
LINE = re.compile(r"^[\s>*-]*[\"'`*]*(?P<name>[^:=\n]+?)[\"'`*]*\s*[:=]\s*(?P<value>.*)$")

Put = Callable[["Question"], None]
"""Takes a question to where the user is."""


class Unclear(Exception):
    """The user's message is no answer; the message says what is wrong with it."""


class Question:
    """One question of a server, and how its answer gets back to the call that waits for it."""

    def __init__(self, source: str, params: Json) -> None:
        self.source = source
        self.params = params
        self.number = secrets.token_hex(4)
        self._answered = anyio.Event()
        self._answer: Json = {}

    def answer(self, result: Json) -> None:
        """Give the server its `ElicitResult`."""
        self._answer = result
        self._answered.set()

    async def result(self) -> Json:
        await self._answered.wait()
        return self._answer


@dataclass(frozen=True, slots=True)
class Elicitor:
    """The answerer of a caller who is asked in the chat. `put` takes the question to the loop."""

    put: Put

    def capabilities(self) -> Json:
        return CAPABILITY

    async def answer(self, source: str, method: str, params: Json) -> Json:
        if method != "elicitation/create":
            words = f"{source} asked for {method}, which cannot be answered in a chat"
            raise SourceRefused(source, words, rpc_code=METHOD_NOT_FOUND)
        if problem := unusable(params):
            raise SourceRefused(source, problem, rpc_code=INVALID_PARAMS)
        question = Question(source, params)
        self.put(question)
        return await question.result()


def unusable(params: Json) -> str | None:
    """Why a question cannot be put to a person."""
    if is_url(params):
        url = params.get("url")
        shown = urlsplit(url) if isinstance(url, str) else None
        if shown is None or shown.scheme not in ("http", "https") or not shown.hostname:
            return "the url of an elicitation must begin with http:// or https://"
        return None
    return None if fields_of(params) is not None else "requestedSchema must be an object"


def is_url(params: Json) -> bool:
    return params.get("mode") == "url"


# The question as text


def question_text(question: Question, problem: str = "") -> str:
    """The assistant's message that asks; `problem` tells what was wrong with the first answer.

    Its number makes the message the only one of its kind: two users may be asked the same.
    """
    params = question.params
    message = str(params.get("message") or "").strip()
    lines = [f"That does not fit: {problem}", ""] if problem else []
    lines += [f"**{question.source}** asks: {message}", ""]
    lines += url_lines(params["url"]) if is_url(params) else form_lines(params)
    return "\n".join([*lines, f"(question {question.number})"])


def number_in(text: str) -> str | None:
    """The number of the question that a text ends with."""
    found = NUMBER.search(text)
    return found.group(1) if found else None


def text_of(message: Json) -> str:
    """What a chat message says."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def url_lines(url: str) -> list[str]:
    return [
        f"Please open this address of **{urlsplit(url).hostname}** yourself, if you trust it:",
        "",
        f"<{url}>",
        "",
        'Answer "done" when you have, "no" if you will not, or "cancel".',
    ]


def form_lines(params: Json) -> list[str]:
    fields = fields_of(params) or {}
    if not fields:
        return ['Answer "yes", "no" or "cancel".']
    needed = required_of(params)
    lines = [field_line(name, schema, name in needed) for name, schema in fields.items()]
    if only_field(params) is not None:
        how = 'Answer with the value, or "cancel".'
    else:
        how = 'Answer with a line such as "name: value" for each, or with JSON; or "cancel".'
    return [*lines, "", how]


def field_line(name: str, schema: Json, needed: bool) -> str:
    facts = [kind_of(schema), "" if needed else "optional", bounds_of(schema)]
    if "default" in schema:
        facts.append(f"otherwise {orjson.dumps(schema['default']).decode()}")
    words = [schema.get(key) for key in ("title", "description")]
    said = ": ".join(word for word in words if isinstance(word, str) and word)
    head = f"- `{name}` ({', '.join(filter(None, facts))})"
    return f"{head}: {said}" if said else head


def kind_of(schema: Json) -> str:
    if schema.get("type") == "array":
        options = options_of(items_of(schema))
        return f"any of {shown(options)}, with commas between" if options else "a list"
    if options := options_of(schema):
        return f"one of {shown(options)}"
    format = schema.get("format")
    if isinstance(format, str):
        return format
    return KINDS.get(str(schema.get("type")), "text")


def shown(options: Mapping[str, Any]) -> str:
    return " | ".join(options)


def bounds_of(schema: Json) -> str:
    for low, high, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " of them"),
    ):
        least, most = schema.get(low), schema.get(high)
        if least is not None and most is not None:
            return f"{least} to {most}{unit}"
        if least is not None or most is not None:
            return f"at least {least}{unit}" if most is None else f"at most {most}{unit}"
    return ""


def items_of(schema: Json) -> Json:
    items = schema.get("items")
    return items if isinstance(items, dict) else {}


def options_of(schema: Json) -> dict[str, Any]:
    """What may be chosen, by the names that people see."""
    for key in ("oneOf", "anyOf"):
        options = schema.get(key)
        if isinstance(options, list):
            consts = [o for o in options if isinstance(o, dict) and "const" in o]
            return {str(o.get("title") or o["const"]): o["const"] for o in consts}
    values, names = schema.get("enum"), schema.get("enumNames")
    if not isinstance(values, list):
        return {}
    if not isinstance(names, list) or len(names) != len(values):
        names = values
    return dict(zip(map(str, names), values, strict=True))


def fields_of(params: Json) -> dict[str, Json] | None:
    schema = params.get("requestedSchema")
    properties = schema.get("properties", {}) if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return None
    return {name: s if isinstance(s, dict) else {} for name, s in properties.items()}


def required_of(params: Json) -> list[str]:
    required = params["requestedSchema"].get("required")
    return required if isinstance(required, list) else []


def only_field(params: Json) -> str | None:
    """The field that a plain text is for: the only one, or the only one that is required."""
    fields = fields_of(params) or {}
    candidates = (
        list(fields) if len(fields) == 1 else [n for n in required_of(params) if n in fields]
    )
    return candidates[0] if len(candidates) == 1 else None


# The answer


def read_answer(text: str, params: Json) -> Json:
    """The `ElicitResult` that a user's message means.

    Raises:
        Unclear: it means none.
    """
    said = text.strip()
    if fenced := FENCE.match(said):
        said = fenced.group(1).strip()
    word = said.lower().rstrip(".!")
    if not is_url(params) and is_an_option(word, params):
        return accepted(said, params)
    if word in CANCEL:
        return {"action": "cancel"}
    if word in DECLINE:
        return {"action": "decline"}
    if is_url(params) or not fields_of(params):
        return consent(word, {} if is_url(params) else {"content": {}})
    return accepted(said, params)


def is_an_option(word: str, params: Json) -> bool:
    name = only_field(params)
    options = options_of((fields_of(params) or {})[name]) if name is not None else {}
    return word in {option.lower() for option in options}


def consent(word: str, content: Json) -> Json:
    if word in YES:
        return {"action": "accept", **content}
    if word in NO:
        return {"action": "decline"}
    raise Unclear('please answer "yes", "no" or "cancel".')


def accepted(said: str, params: Json) -> Json:
    fields = fields_of(params) or {}
    content = {
        name: value_of(name, value, fields[name]) for name, value in values_in(said, params).items()
    }
    for name, schema in fields.items():
        if "default" in schema:
            content.setdefault(name, schema["default"])
    check(content, params["requestedSchema"])
    return {"action": "accept", "content": content}


def values_in(said: str, params: Json) -> Json:
    """The values that a message holds, as JSON or as the texts that stand there."""
    fields = fields_of(params) or {}
    if said.startswith("{"):
        try:
            given = orjson.loads(said)
        except orjson.JSONDecodeError as exc:
            raise Unclear(f"this is not JSON ({exc}).") from exc
        return {name: value for name, value in given.items() if name in fields}
    if lines := values_in_lines(said, fields):
        return lines
    if (name := only_field(params)) is not None:
        return {name: said}
    raise Unclear(f'please write a line such as "{next(iter(fields))}: …" for each.')


def values_in_lines(said: str, fields: Mapping[str, Json]) -> Json:
    """`field: value` lines, by name or title; other lines belong to the value before them."""
    names = {str(s["title"]).lower(): name for name, s in fields.items() if s.get("title")}
    names |= {name.lower(): name for name in fields}
    values: dict[str, str] = {}
    last: str | None = None
    for line in said.splitlines():
        match = LINE.match(line)
        name = names.get(match.group("name").strip().lower()) if match else None
        if match and name is not None:
            last, values[name] = name, match.group("value").strip()
        elif last is not None:
            values[last] = f"{values[last]}\n{line}".strip()
    return values


def value_of(name: str, value: Any, schema: Json) -> Any:
    """What a text means in a field of this kind; anything else stays as it is."""
    if not isinstance(value, str):
        return value
    if schema.get("type") == "array":
        parts = [part.strip() for part in value.strip("[]").split(",") if part.strip()]
        return [chosen(part.strip("\"'"), items_of(schema)) for part in parts]
    if options_of(schema):
        return chosen(value, schema)
    word = value.strip().lower().rstrip(".!")
    match schema.get("type"):
        case "boolean":
            if word not in YES | NO:
                raise Unclear(f'{name}: please answer "yes" or "no".')
            return word in YES
        case "integer" | "number":
            return number_of(name, value.strip())
        case _:
            return value


def chosen(value: str, schema: Json) -> Any:
    wanted = value.strip().lower()
    options = options_of(schema)
    by_name = {option.lower(): const for option, const in options.items()}
    by_value = {str(const).lower(): const for const in options.values()}
    return by_name.get(wanted, by_value.get(wanted, value))


def number_of(name: str, text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        found = float(text)
    except ValueError:
        raise Unclear(f"{name}: {text!r} is not a number.") from None
    return int(found) if found.is_integer() else found


def check(content: Json, schema: Json) -> None:
    # Here, for jsonschema is 3 MiB, and questions to the user are rare.
    from mcp_bridge.tools.validation import problems_of

    if problems := problems_of(content, schema):
        raise Unclear("; ".join(problems[:5]) + ".")
