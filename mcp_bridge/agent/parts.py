"""MCP content blocks as the content of a chat message. Pure.

Used where MCP hands us whole messages (prompts, sampling) or things to read (resources). What a
model cannot see becomes a text that names it.
"""

from mcp_bridge.agent.convert import blocks, image_part, read_block
from mcp_bridge.types import Json

AUDIO_FORMATS = {"x-wav": "wav", "wave": "wav", "vnd.wave": "wav", "mpeg": "mp3", "x-flac": "flac"}
"""OpenAI's names for formats that MIME names otherwise."""


def parts_of(content: object, *, vision: bool) -> list[Json]:
    """The parts of a chat message that say what `content` (a block or a list of them) says."""
    parts: list[Json] = []
    for block in blocks(content):
        kind, data = block.get("type"), block.get("data")
        if kind == "audio" and isinstance(data, str):
            parts.append(audio_part(str(block.get("mimeType") or "audio/wav"), data))
        elif kind == "image" and isinstance(data, str) and vision:
            parts.append(image_part(str(block.get("mimeType") or "image/png"), data))
        else:
            text, image = read_block(block, vision=vision)
            parts += [text_part(text)] if text else []
            parts += [image] if image is not None else []
    return parts


def content_of(parts: list[Json]) -> str | list[Json]:
    """The content of a message: a plain string when it is all text, for every server takes that."""
    texts = [part["text"] for part in parts if part.get("type") == "text"]
    return "\n".join(texts) if len(texts) == len(parts) else parts


def text_part(text: str) -> Json:
    return {"type": "text", "text": text}


def audio_part(mime: str, data: str) -> Json:
    subtype = mime.partition(";")[0].rpartition("/")[2].strip().lower()
    format = AUDIO_FORMATS.get(subtype, subtype)
    return {"type": "input_audio", "input_audio": {"data": data, "format": format}}
