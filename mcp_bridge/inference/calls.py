"""Putting tool calls together from what engines stream.

Theory of operation. A fragment belongs to a call by its `index` and its `id`, but engines leave
out either, repeat both, or number every call 0. What holds everywhere: a new id on a used index
is a new call; a fragment that says neither continues the last one; and a call whose arguments are
a whole object is over when another object begins. A call is given out (released) once its name is
sure: with its first arguments, or when it ends. Calls that come to nothing, with neither name nor
arguments, are never released, so positions count only real calls.
"""

import secrets
from collections.abc import Callable, Collection, Iterable
from typing import Any

from mcp_bridge.exact import decode, dumps
from mcp_bridge.inference.answer import Fragment, ModelCall
from mcp_bridge.types import Json

KNOWN = frozenset({"index", "id", "type", "function", "custom"})


def mint_id() -> str:
    """An id for a call that came without one."""
    return f"call_{secrets.token_hex(12)}"


def is_object(text: str) -> bool:
    """Whether it is a whole JSON object."""
    if not text.rstrip().endswith("}"):
        return False
    try:
        return isinstance(decode(text.encode("utf-8", "replace")), dict)
    except ValueError:
        return False


class _Call:
    """A call that is being put together."""

    __slots__ = ("arguments", "extra", "id", "index", "name", "position", "shown")

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.extra: Json = {}
        self.position: int | None = None
        self.shown = 0
        """How many of the arguments' pieces have been given out."""

    @property
    def text(self) -> str:
        return "".join(self.arguments)


class Calls:
    """The tool calls of one choice. `shown` names the tools whose calls are given out as they come.

    None: all are.
    """

    def __init__(
        self, mint: Callable[[], str] = mint_id, shown: Collection[str] | None = None
    ) -> None:
        self._mint = mint
        self._shown = shown
        self._calls: list[_Call] = []
        self._released: list[_Call] = []
        self._legacy: _Call | None = None
        self._last: _Call | None = None
        self._fragments: list[Fragment] = []

    def add(self, items: Any) -> None:
        """Fragments as streamed: the value of `delta.tool_calls`."""
        for item in _objects(items):
            call = self._last = self._find(item)
            if call.position is not None and _repeats(call, item):
                continue
            self._extend(call, item)
            if call.name and call.arguments:
                self._release(call)

    def go_on(self, arguments: str) -> None:
        """More arguments of the call that the last fragment belonged to."""
        assert self._last is not None  # noqa: S101  # there was one, which this one is like
        self._last.arguments.append(arguments)
        if self._last.name:
            self._release(self._last)

    def add_whole(self, items: Any) -> None:
        """Whole calls: the value of `message.tool_calls`. None of them continues another."""
        for item in _objects(items):
            call = self._begin(_index(item))
            self._extend(call, item)

    def add_legacy(self, item: Any) -> None:
        """The `function_call` of old; some engines send it beside `tool_calls`, as a copy."""
        if isinstance(item, dict):
            self._legacy = self._legacy or _Call(None)
            self._extend(self._legacy, {"function": item})

    def close(self) -> None:
        """The answer has ended: give out what waited for more."""
        if self._legacy and not any(call.name for call in self._calls):
            self._calls.append(self._legacy)
        self._legacy = None
        for call in self._calls:
            if call.name:
                self._release(call)

    def take(self) -> tuple[Fragment, ...]:
        """The fragments that can be given out since the last time."""
        if not self._fragments:
            return ()
        taken = tuple(self._fragments)
        self._fragments.clear()
        return taken

    def finished(self, *, cut: bool) -> tuple[ModelCall, ...]:
        """The calls of the answer; `cut`: it ended before the model was done."""
        last = len(self._released) - 1
        return tuple(
            ModelCall(call.id, call.name, call.text, _complete(call, cut, n == last), _extra(call))
            for n, call in enumerate(self._released)
        )

    def __bool__(self) -> bool:
        return bool(self._released)

    def _find(self, item: Json) -> _Call:
        """The call that a fragment belongs to, begun if there is none."""
        index, id = _index(item), _text(item.get("id"))
        name = _text(_function(item).get("name"))
        last = self._calls[-1] if self._calls else None
        if last is None:
            return self._begin(index)
        if not id and not name and index is not None and index == last.index:
            return last  # as nearly all engines continue a call
        call = self._candidate(index, id, has_name=bool(name))
        if call is None or _is_another(call, id, name, item):
            return self._begin(index)
        return call

    def _candidate(self, index: int | None, id: str, *, has_name: bool) -> _Call | None:
        same_id = self._latest(lambda call: bool(id) and call.id == id)
        if index is None:
            return same_id or (None if id or has_name else self._latest(lambda call: True))
        on_index = [call for call in self._calls if call.index == index]
        if same_id in on_index:
            return same_id
        # An id that another index uses: a copy of it is a call of its own, a mere piece is not.
        return on_index[-1] if on_index else (None if has_name else same_id)

    def _latest(self, wanted: Callable[[_Call], bool]) -> _Call | None:
        return next((call for call in reversed(self._calls) if wanted(call)), None)

    def _begin(self, index: int | None) -> _Call:
        call = _Call(index)
        self._calls.append(call)
        return call

    def _extend(self, call: _Call, item: Json) -> None:
        function = _function(item)
        call.id = call.id or _text(item.get("id"))
        call.name = call.name or _text(function.get("name"))
        if text := _piece(item):
            call.arguments.append(text)
        if not item.keys() <= KNOWN:
            call.extra |= {k: v for k, v in item.items() if k not in KNOWN and v is not None}
        if item.get("type") == "custom":
            call.extra["type"] = "custom"

    def _release(self, call: _Call) -> None:
        if call.position is None:
            for earlier in self._calls:
                if earlier is call:
                    break
                if earlier.name and earlier.position is None:
                    self._give_out(earlier)
        self._give_out(call)

    def _give_out(self, call: _Call) -> None:
        first = call.position is None
        if call.position is None:
            call.position = len(self._released)
            if not call.id or any(call.id == other.id for other in self._released):
                call.id = self._mint()
            self._released.append(call)
        if self._shown is not None and call.name not in self._shown:
            return
        new = "".join(call.arguments[call.shown :])
        call.shown = len(call.arguments)
        if first or new:
            self._fragments.append(Fragment(call.position, call.id, call.name, new))


def _is_another(call: _Call, id: str, name: str, item: Json) -> bool:
    """Whether a fragment on a used index is the beginning of another call."""
    if id and call.id and id != call.id:
        # Some gateways make up an id for every piece of a call: those have no name.
        return bool(name) or (not _piece(item) and is_object(call.text))
    if name and call.name and name != call.name:
        return True
    if not (name and call.name and call.arguments):
        return False
    begins = _piece(item).lstrip().startswith("{")
    return begins and is_object(call.text) and not _repeats(call, item)


def _repeats(call: _Call, item: Json) -> bool:
    """Whether an engine says a whole call again, under the same id."""
    if not call.id or item.get("id") != call.id:
        return False
    again = _piece(item)
    return again.startswith("{") and again == call.text and is_object(again)


def _extra(call: _Call) -> Json:
    """What goes back with a call; one of a custom tool goes back in its own shape."""
    if call.extra.get("type") != "custom":
        return call.extra
    return {**call.extra, "custom": {"name": call.name, "input": call.text}}


def _complete(call: _Call, cut: bool, is_last: bool) -> bool:
    if not cut:
        return True
    # Without arguments it may be a call of a tool that needs none, unless it was being written.
    return is_object(call.text) if call.text.strip() else not is_last


def _objects(items: Any) -> Iterable[Json]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else ()


def _function(item: Json) -> Json:
    function = item.get("function") or item.get("custom")
    return function if isinstance(function, dict) else {}


def _piece(item: Json) -> str:
    """The text of arguments in a fragment."""
    function = _function(item)
    value = function.get("arguments", function.get("input"))
    if value is None:
        return ""
    return value if isinstance(value, str) else dumps(value)


def _index(item: Json) -> int | None:
    index = item.get("index")
    return index if isinstance(index, int) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
