"""Tables, as Markdown or for a terminal."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Value = float | int | str | None


@dataclass(slots=True)
class Table:
    """Figures with a title. `notes` say what the figures mean."""

    title: str
    columns: Sequence[str]
    rows: list[tuple[str, Sequence[Value]]] = field(default_factory=list)
    notes: str = ""

    def add(self, label: str, values: Iterable[Value]) -> None:
        self.rows.append((label, list(values)))

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", *([self.notes, ""] if self.notes else [])]
        lines += [_row(["", *self.columns]), _row(["---"] * (len(self.columns) + 1))]
        lines += [_row([label, *map(shown, values)]) for label, values in self.rows]
        return "\n".join(lines) + "\n"

    def text(self) -> str:
        cells = [["", *self.columns]]
        cells += [[label, *map(shown, values)] for label, values in self.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [self.title, *([self.notes] if self.notes else [])]
        for label, *values in cells:
            padded = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
            lines.append("  ".join([label.ljust(widths[0]), *padded]).rstrip())
        return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def shown(value: Value) -> str:
    """A figure with as many digits as mean something."""
    match value:
        case None:
            return "-"
        case str():
            return value
        case float() if math.isnan(value):
            return "-"
        case float() if abs(value) < 10:
            return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
        case float() if abs(value) < 100:
            return f"{value:.1f}"
        case _:
            return f"{value:,.0f}"


def ratio(value: float, to: float) -> str | None:
    """How many times as much."""
    if not to or math.isnan(value) or math.isnan(to):
        return None
    return f"{value / to:.2f} x"
