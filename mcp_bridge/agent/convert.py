"""From what a tool returned to what a model can read (DESIGN 3.14; L18-L20). Pure functions."""

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from mcp_bridge.exact import text_of
from mcp_bridge.tools.stored import boundary
from mcp_bridge.types import Json, frozen

SEEN = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""The kinds of images that vision models take."""
URL_SAFE = str.maketrans("-_", "+/")
LONG = 1000
BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
DATA_URL = re.compile(r"data:[^,]{0,200};base64,")
KINDS = tuple(map(re.compile, ("[A-Z]", "[a-z]", "[0-9]")))
NOTHING_RETURNED = "The tool ran and returned no content."
FAILED_SILENTLY = "The tool failed and gave no reason."


@frozen
class Readable:
    """A result for a model: text for the tool message, images as `image_url` parts after it."""

    text: str
    images: tuple[Json, ...] = ()
    is_error: bool = False


def readable(result: Json, *, vision: bool) -> Readable:
    """Turn a raw `CallToolResult` into text and images. Base64 never becomes text.

    `vision`: the model sees images; otherwise a placeholder names them.
    """
    texts: list[str] = []
    images: list[Json] = []
    for block in blocks(result.get("content")):
        text, image = read_block(block, vision=vision)
        if text:
            texts.append(text)
        if image is not None:
            images.append(image)
    is_error = result.get("isError") is True
    structured = result.get("structuredContent")
    if structured is not None and not told(structured, texts):
        texts.append(shown(structured))
    if is_error:
        return Readable(error_text(texts), tuple(images), is_error=True)
    return Readable("\n".join(texts) or NOTHING_RETURNED, tuple(images))


def blocks(content: object) -> Iterator[Json]:
    """Content blocks, however the server spelled them."""
    for block in content if isinstance(content, list) else [content]:
        if isinstance(block, dict):
            yield block
        elif isinstance(block, str):
            yield {"type": "text", "text": block}
        elif block is not None:
            yield {"type": "text", "text": text_of(block)}


def error_text(texts: list[str]) -> str:
    text = "\n".join(texts) or FAILED_SILENTLY
    return text if text.lower().startswith("error") else f"Error: {text}"


def told(structured: object, texts: list[str]) -> bool:
    """Whether the text says the same: servers are asked to repeat structured content as text."""
    meant = [structured]
    if isinstance(structured, dict) and structured.keys() == {"result"}:
        meant.append(structured["result"])  # how FastMCP wraps what is no object
    return bool(texts) and any(says(texts, value) for value in meant)


def says(texts: list[str], value: object) -> bool:
    if isinstance(value, list) and len(value) == len(texts):
        if all(is_text_of(text, item) for text, item in zip(texts, value, strict=True)):
            return True
    return any(is_text_of(text, value) for text in (*texts, "\n".join(texts)))


def is_text_of(text: str, value: object) -> bool:
    if text == value:
        return True
    try:
        return bool(orjson.loads(text) == value)
    except (orjson.JSONDecodeError, RecursionError):
        return False


def shown(value: object) -> str:
    """Data as text, without what is base64 in it: that costs tokens and tells a model nothing."""
    try:
        return text_of(without_base64(value))
    except RecursionError:
        return text_of(value)


def without_base64(value: Any) -> Any:
    match value:
        case str() if is_base64(value):
            return f"[{len(value) * 3 // 4} bytes of base64 left out]"
        case list():
            return [without_base64(item) for item in value]
        case dict():
            return {key: without_base64(item) for key, item in value.items()}
        case _:
            return value


def is_base64(text: str) -> bool:
    """Whether a text can only be base64: long, and of capitals, small letters and digits alike."""
    if len(text) < LONG:
        return False
    if DATA_URL.match(text):
        return True
    return BASE64.fullmatch(text) is not None and all(kind.search(text) for kind in KINDS)


def read_block(block: Json, *, vision: bool) -> tuple[str, Json | None]:
    kind = block.get("type")
    if kind == "text" or (kind is None and "text" in block):
        value = block.get("text")
        return (value if isinstance(value, str) else text_of(value)), None
    if kind == "image":
        return media("image", block, vision=vision)
    if kind == "audio":
        return media("audio", block, vision=False)
    if kind == "resource":
        return resource(block.get("resource"), vision=vision)
    if kind == "resource_link":
        return link(block), None
    return shown({k: v for k, v in block.items() if k != "data"}), None


def media(kind: str, block: Json, *, vision: bool) -> tuple[str, Json | None]:
    mime = str(block.get("mimeType") or ("image/png" if kind == "image" else "audio/wav"))
    data = block.get("data")
    if not isinstance(data, str):
        return f"[{kind} without data]", None
    image = picture(mime, data) if vision else None
    if image is not None:
        return f"[{kind} {mime}: shown below]", image
    return f"[{kind} {mime}, {len(data) * 3 // 4} bytes: it cannot be shown to this model]", None


def picture(mime: str, data: str) -> Json | None:
    """An image as models take them, or None: one bad image fails the whole request."""
    if data.startswith("data:"):
        head, _, data = data.partition(",")
        mime = head.removeprefix("data:")
    mime = mime.partition(";")[0].strip().lower().replace("image/jpg", "image/jpeg")
    data = "".join(data.split()).translate(URL_SAFE)
    try:
        seen = mime in SEEN and len(base64.b64decode(data, validate=True)) > 0
    except ValueError:
        return None
    return image_part(mime, data) if seen else None


def image_part(mime: str, data: str) -> Json:
    return {"type": "image_url", "image_url": {"url": f"data:{mime};base64,{data}"}}


def resource(value: object, *, vision: bool) -> tuple[str, Json | None]:
    if not isinstance(value, dict):
        return "[empty resource]", None
    uri = value.get("uri", "")
    if isinstance(value.get("text"), str):
        return (f"[resource {uri}]\n" if uri else "") + value["text"], None
    mime = str(value.get("mimeType") or "application/octet-stream")
    blob = value.get("blob")
    image = picture(mime, blob) if isinstance(blob, str) and vision else None
    if image is not None:
        return f"[resource {uri}, {mime}: shown below]", image
    size = len(blob) * 3 // 4 if isinstance(blob, str) else 0
    return f"[resource {uri}, {mime}, {size} bytes: it cannot be shown as text]", None


def link(block: Json) -> str:
    parts = [str(block[key]) for key in ("title", "name", "description") if block.get(key)]
    named = f" ({': '.join(dict.fromkeys(parts))})" if parts else ""
    return f"[resource {block.get('uri', '')}{named}]"


def cut(text: str, cap: int, notice: Callable[[int], str]) -> str:
    """The head and the tail of a text that is too long (L20).

    Between them stands a notice, made from the offset at which the head ends.
    """
    head = boundary(text, cap * 4 // 5)
    tail = boundary(text, len(text) - (cap - head))
    return f"{text[:head]}\n\n[{notice(head)}]\n\n{text[tail:]}"
