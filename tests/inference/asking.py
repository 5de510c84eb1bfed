"""Asking inference servers in the tests of this folder."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from mcp_bridge.config.settings import InferenceServer
from mcp_bridge.errors import InferenceError
from mcp_bridge.inference.answer import Answer, Opened, Part
from mcp_bridge.inference.client import NO_HEADERS, Inference
from mcp_bridge.types import Json
from tests.fakes import ScriptedInference

MESSAGES: list[Json] = [{"role": "user", "content": "hi"}]
Item = Opened | Part | Answer


def question(*, stream: bool = False, model: str = "model-a", **fields: Any) -> Json:
    return {"model": model, "messages": MESSAGES, **({"stream": True} if stream else {}), **fields}


def at(server: ScriptedInference, **settings: Any) -> InferenceServer:
    """Settings of a server that is asked at `server`."""
    return InferenceServer.model_validate({"base_url": server.base_url, **settings})


@asynccontextmanager
async def inference(*servers: InferenceServer, **options: Any) -> AsyncGenerator[Inference]:
    """Asks these servers; tries again without waiting."""
    asked = Inference(servers, **{"backoff": 0.0, **options})
    try:
        yield asked
    finally:
        await asked.aclose()


async def items(
    asked: Inference,
    body: Json,
    headers: Mapping[str, str] = NO_HEADERS,
    *,
    text_calls_for: Collection[str] = (),
) -> list[Item]:
    """Everything that one question brings back."""
    asking = await asked.chat(body, headers=headers, text_calls_for=text_calls_for)
    async with aclosing(asking) as found:
        return [item async for item in found]


async def answer_to(asked: Inference, body: Json) -> Answer:
    """The answer to a question, which must be the last and the only one."""
    *before, answer = await items(asked, body)
    assert isinstance(answer, Answer)
    assert not any(isinstance(item, Answer) for item in before)
    assert [isinstance(item, Opened) for item in before].count(True) == 1
    return answer


async def error_of(asked: Inference, body: Json) -> InferenceError:
    """The error that a question ends in."""
    with pytest.raises(InferenceError) as caught:
        await items(asked, body)
    return caught.value


def shown(found: list[Item]) -> str:
    """The text that the parts of a stream show."""
    chunks = [chunk for item in found if isinstance(item, Part) for chunk in item.read()]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
