"""The words that every part of the bridge shares."""

from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

Json = dict[str, Any]
"""Foreign JSON that we pass on: an object whose fields are not ours to define."""

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """A slotted dataclass whose fields never change. The type checker sees to that, not Python.

    Python's own `frozen=True` makes it four times as dear to make one (docs/performance.md), and
    each tool call makes eight.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


@frozen
class Caller:
    """Who is asking.

    `name` identifies the key (never the key itself) in logs, limits and stores; `tools` are the
    access patterns of the key (DESIGN 3.17), `toolset` the toolset it is bound to. Both None means
    that the key may use everything.
    """

    name: str = "anonymous"
    tenant: str | None = None
    scopes: frozenset[str] = field(default_factory=frozenset)
    toolset: str | None = None
    tools: tuple[str, ...] | None = None


ANYONE = Caller()
"""The caller when authentication is off."""
