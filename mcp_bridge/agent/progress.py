"""How running tools are shown to a person, for those who asked for it (DESIGN 3.18). Pure.

`reasoning`: lines in `reasoning_content`. `openwebui`: chunks that are valid for every client and
that Open WebUI also reads as its native tool panel (research: openwebui.md section 5): a status
line while tools work, then each call and its output.
"""

from dataclasses import dataclass, field
from typing import Any

from mcp_bridge.agent.events import ToolFinished, ToolProgress, ToolStarted
from mcp_bridge.config.settings import Progress
from mcp_bridge.exact import text_of
from mcp_bridge.types import Json

ToolEvent = ToolStarted | ToolProgress | ToolFinished
AT_THE_END = 9999
"""Open WebUI inserts before the last item unless the index is beyond its list."""
SHOWN = 500


@dataclass(slots=True)
class Display:
    """How the tools of one round are shown, as chunks without id, created and model.

    `mixed`: the client has calls of the same round to answer. Open WebUI writes the panel down in
    its history, and drops a result that other calls stand before; so then ours come all at once,
    the calls before the outputs.
    """

    mode: Progress
    mixed: bool = False
    _running: dict[str, str] = field(default_factory=dict)
    _calls: list[Json] = field(default_factory=list)
    _outputs: list[Json] = field(default_factory=list)

    def show(self, event: ToolEvent) -> list[Json]:
        """What is shown of `event`; nothing when the mode is off."""
        match self.mode:
            case "reasoning":
                return [chunk({"reasoning_content": line(event)})]
            case "openwebui":
                return self._panel(event)
            case _:
                return []

    def pause(self) -> list[Json]:
        """The turn ends with a question while tools are running."""
        return [status("waiting for an answer", done=True)] if self._running else []

    def go_on(self) -> list[Json]:
        """The answer is here, in the turn that begins."""
        return [self._calling()] if self._running else []

    def end(self) -> list[Json]:
        """All tools have ended: what was held back."""
        held = [*self._calls, *self._outputs]
        self._calls, self._outputs = [], []
        return held

    def _panel(self, event: ToolEvent) -> list[Json]:
        match event:
            case ToolStarted():
                self._running[event.id] = event.name
                return [self._calling()]
            case ToolProgress():
                return [status(f"{event.name}: {measure(event)}", done=False)]
            case ToolFinished():
                self._running.pop(event.id, None)
                self._calls.append(item(call_item(event)))
                self._outputs.append(item(output_item(event)))
                shown = [] if self.mixed else self.end()
                if self._running:
                    return [*shown, self._calling()]
                return [*shown, status(f"{event.name} is done", done=True)]

    def _calling(self) -> Json:
        """The status line for the tool that began last of those that run."""
        return status(f"Calling {[*self._running.values()][-1]} …", done=False)


def chunk(delta: Json, **fields: Any) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], **fields}


def line(event: ToolEvent) -> str:
    match event:
        case ToolStarted():
            return f"→ {event.name}({short(text_of(event.arguments))})\n"
        case ToolProgress():
            return f"  {event.name}: {measure(event)}\n"
        case ToolFinished():
            sign = "✗" if event.is_error else "✓"
            return f"{sign} {event.name} ({event.seconds:.1f} s): {short(event.text)}\n"


def measure(event: ToolProgress) -> str:
    of = f" of {event.total:.10g}" if event.total is not None else ""
    message = short(event.message or "")
    return " ".join(part for part in (f"{event.progress:.10g}{of}", message) if part)


def short(text: str) -> str:
    """The beginning of a text, in one line."""
    flat = " ".join(text[: 4 * SHOWN].split())
    return flat if len(flat) <= SHOWN and len(text) <= 4 * SHOWN else flat[:SHOWN] + "…"


def call_item(event: ToolFinished) -> Json:
    return {
        "type": "function_call",
        "id": f"fc_{event.id}",
        "call_id": event.id,
        "name": event.name,
        "arguments": text_of(event.arguments),
        "status": state(event),
    }


def output_item(event: ToolFinished) -> Json:
    return {
        "type": "function_call_output",
        "id": f"fco_{event.id}",
        "call_id": event.id,
        "status": state(event),
        "output": [{"type": "input_text", "text": event.text}],
    }


def state(event: ToolFinished) -> str:
    return "failed" if event.is_error else "completed"


def item(value: Json) -> Json:
    return chunk({}, type="response.output_item.added", output_index=AT_THE_END, item=value)


def status(description: str, *, done: bool) -> Json:
    data: Json = {"description": description, "done": done}
    if done:
        data["hidden"] = True
    return chunk({}, event={"type": "status", "data": data})
