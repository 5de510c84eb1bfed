"""What may stand at each place of the configuration, read from the settings' annotations.

Aliases, unknown keys, variables, messages and the documentation all ask the same question: what is
at this path? `ROOT` answers it step by step, so that none of them repeats the settings.
"""

import types
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from mcp_bridge.config.settings import McpServer, Section, Settings

Step = str | int
Path = tuple[Step, ...]

INTERNAL = {(McpServer, "problem")}
"""Fields that loading fills in: nobody can set them."""


class Kind(Enum):
    """The sorts of values that settings have."""

    SECTION = auto()
    MAPPING = auto()
    LIST = auto()
    TEXT = auto()
    SECRET = auto()
    CHOICE = auto()
    BOOLEAN = auto()
    INTEGER = auto()
    NUMBER = auto()


@dataclass(frozen=True, slots=True)
class Shape:
    """What may stand at one place. `item` is what a mapping or a list holds."""

    kind: Kind
    section: type[Section] | None = None
    item: "Shape | None" = None
    choices: tuple[str, ...] = ()

    def fields(self) -> dict[str, FieldInfo]:
        """The settings of a section, by name."""
        if self.section is None:
            return {}
        known = self.section.model_fields.items()
        return {name: field for name, field in known if (self.section, name) not in INTERNAL}

    def at(self, step: Step) -> "Shape | None":
        """What is one step further, None when nothing can be there.

        A list of sections may be passed over: `inference_server.base_url` is the only server's.
        """
        if self.kind is Kind.SECTION:
            field = self.fields().get(str(step))
            return shape_of(field.annotation) if field else None
        if self.kind is Kind.LIST and self.item and isinstance(step, str):
            return self.item.at(step)
        return self.item

    @property
    def is_text(self) -> bool:
        return self.kind in (Kind.TEXT, Kind.SECRET)


SCALARS = {
    str: Kind.TEXT,
    SecretStr: Kind.SECRET,
    bool: Kind.BOOLEAN,
    int: Kind.INTEGER,
    float: Kind.NUMBER,
}


def shape_of(annotation: Any) -> Shape:
    """The shape that a setting's annotation describes."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return shape_of(args[0])
    if origin in (Union, types.UnionType):
        return shape_of(next(arg for arg in args if arg is not types.NoneType))
    if origin is dict:
        return Shape(Kind.MAPPING, item=shape_of(args[1]))
    if origin is tuple:
        return Shape(Kind.LIST, item=shape_of(args[0]))
    if origin is Literal:
        return Shape(Kind.CHOICE, choices=args)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return Shape(Kind.SECTION, section=annotation)
    return Shape(SCALARS[annotation])


ROOT = Shape(Kind.SECTION, section=Settings)


def shape_at(path: Sequence[Step]) -> Shape | None:
    """What may stand at that path."""
    shape: Shape | None = ROOT
    for step in path:
        shape = shape.at(step) if shape else None
    return shape
