"""How running tools are shown to a person, for those who asked for it (DESIGN 3.18). Pure.

`reasoning`: lines in `reasoning_content`. `openwebui`: chunks that are valid for every client and
that Open WebUI also reads as its native tool panel (research: openwebui.md section 5): a status
line while a tool works, then the call and its output together.
"""

from typing import Any

from mcp_bridge.agent.events import ToolFinished, ToolProgress, ToolStarted
from mcp_bridge.config.settings import Progress
from mcp_bridge.exact import text_of
from mcp_bridge.types import Json

AT_THE_END = 9999
"""Open WebUI inserts before the last item unless the index is beyond its list."""
SHOWN = 500


def shown(event: ToolStarted | ToolProgress | ToolFinished, mode: Progress) -> list[Json]:
    """Chunks (without id, created and model) that show `event`; none when `mode` is off."""
    match mode:
        case "reasoning":
            return [chunk({"reasoning_content": line(event)})]
        case "openwebui":
            return panel(event)
        case _:
            return []


def chunk(delta: Json, **fields: Any) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], **fields}


def line(event: ToolStarted | ToolProgress | ToolFinished) -> str:
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


def panel(event: ToolStarted | ToolProgress | ToolFinished) -> list[Json]:
    match event:
        case ToolStarted():
            return [status(f"Calling {event.name} …", done=False)]
        case ToolProgress():
            return [status(f"{event.name}: {measure(event)}", done=False)]
        case ToolFinished():
            state = "failed" if event.is_error else "completed"
            call = {
                "type": "function_call",
                "id": f"fc_{event.id}",
                "call_id": event.id,
                "name": event.name,
                "arguments": text_of(event.arguments),
                "status": state,
            }
            output = {
                "type": "function_call_output",
                "id": f"fco_{event.id}",
                "call_id": event.id,
                "status": state,
                "output": [{"type": "input_text", "text": event.text}],
            }
            return [item(call), item(output), status(f"{event.name} is done", done=True)]


def item(value: Json) -> Json:
    return chunk({}, type="response.output_item.added", output_index=AT_THE_END, item=value)


def status(description: str, *, done: bool) -> Json:
    data: Json = {"description": description, "done": done}
    if done:
        data["hidden"] = True
    return chunk({}, event={"type": "status", "data": data})
