"""A whole bridge under test: our application on a real socket, a scripted model, scripted tools.

    async with bridged(answer(calls=[("c1", "echo", '{"text": "hi"}')]), answer("done")) as place:
        completion = await place.chat("say hi")

`place.streamed(…)` reads the stream as the strictest client would: it fails on everything that the
wire contract forbids (DESIGN 3.2), and gives back what the client has put together.
"""

import json
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
from fastapi import FastAPI

from mcp_bridge.app import create_app
from mcp_bridge.bridge import Bridge
from mcp_bridge.config.load import Loaded
from mcp_bridge.config.settings import Settings
from tests.fakes import Item, ScriptedInference
from tests.mcp_client.running import PATIENCE, SCRIPTED
from tests.servers.web import serving

Json = dict[str, Any]
TEXT_OF = {"function": "arguments", "custom": "input"}


def scripted_server(*behaviours: str, log: Path | None = None, **settings: Any) -> Json:
    """A configuration entry of a scripted stdio server."""
    env = {"SCRIPT_LOG": str(log)} if log else {}
    return {"command": sys.executable, "args": [SCRIPTED, *behaviours], "env": env, **settings}


@dataclass
class Streamed:
    """What a strict client has read from a stream."""

    status: int
    headers: Mapping[str, str]
    chunks: list[Json] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    error: Json | None = None
    done: bool = False

    @property
    def text(self) -> str:
        return self._joined("content")

    @property
    def reasoning(self) -> str:
        return self._joined("reasoning_content")

    def _joined(self, name: str) -> str:
        return "".join(delta.get(name) or "" for delta in self.deltas)

    @property
    def deltas(self) -> list[Json]:
        return [c["delta"] for chunk in self.chunks for c in chunk["choices"] if c["index"] == 0]

    @property
    def usage(self) -> Json | None:
        return self.chunks[-1].get("usage") if self.chunks else None

    @property
    def finish_reason(self) -> str | None:
        reasons = [c["finish_reason"] for chunk in self.chunks for c in chunk["choices"]]
        return next((reason for reason in reasons if reason), None)

    @property
    def calls(self) -> list[Json]:
        """The tool calls, put together by index as SDKs do."""
        calls: list[Json] = []
        for delta in self.deltas:
            for piece in delta.get("tool_calls") or ():
                index = piece["index"]
                assert index <= len(calls), "tool calls are numbered from 0, without gaps"
                if index == len(calls):
                    kind = piece["type"]
                    assert piece["id"] and piece[kind]["name"] and kind in TEXT_OF
                    calls.append({**piece, kind: {**piece[kind]}})
                    continue
                call, kind = calls[index], calls[index]["type"]
                said = piece.get(kind) or {}
                assert "id" not in piece and "name" not in said, "id and name come once"
                call[kind][TEXT_OF[kind]] += said.get(TEXT_OF[kind], "")
                call |= {k: v for k, v in piece.items() if k not in (kind, "index")}
        return [{k: v for k, v in call.items() if k != "index"} for call in calls]

    def take(self, line: str) -> None:
        """One line of the stream, as the strictest client reads it."""
        if line.startswith(":"):
            self.comments.append(line)
        elif line:
            assert line.startswith("data: "), f"only data lines and comments: {line!r}"
            assert not self.done and self.error is None, "nothing comes after the end"
            self._take_data(line[6:])

    def _take_data(self, data: str) -> None:
        if data == "[DONE]":
            self.done = True
            return
        chunk = json.loads(data)
        if "error" in chunk:
            assert "choices" not in chunk
            self.error = chunk["error"]
            return
        self.chunks.append(chunk)

    def check(self) -> None:
        """One message: one id, created and model, the role once and first, one finish reason."""
        assert len({(c["id"], c["created"], c["model"]) for c in self.chunks}) <= 1
        assert all(c["object"] == "chat.completion.chunk" for c in self.chunks)
        if not self.done:
            assert self.error is not None, "a stream ends with [DONE] or an error"
            return
        roles = [number for number, delta in enumerate(self.deltas) if "role" in delta]
        assert roles == [0]
        reasons = [c["finish_reason"] for k in self.chunks for c in k["choices"] if c["index"] == 0]
        assert [r for r in reasons if r is not None] == [reasons[-1]]
        with_usage = [number for number, chunk in enumerate(self.chunks) if chunk.get("usage")]
        assert with_usage in ([], [len(self.chunks) - 1]), "usage comes once, last"


async def lines(response: httpx2.Response) -> AsyncGenerator[str]:
    """The lines of a stream as SSE has them; httpx2's end at U+0085 and U+2028 too."""
    rest = ""
    async for text in response.aiter_text():
        *whole, rest = (rest + text).split("\n")
        for line in whole:
            yield line
    assert rest == "", "a stream ends with a whole line"


@dataclass(frozen=True)
class Place:
    """A running bridge and everything around it."""

    url: str
    http: httpx2.AsyncClient
    inference: ScriptedInference
    bridge: Bridge
    app: FastAPI

    def body(self, question: str | Sequence[Json], **fields: Any) -> Json:
        messages = (
            [{"role": "user", "content": question}] if isinstance(question, str) else question
        )
        return {"model": "model-a", "messages": list(messages), **fields}

    async def chat(
        self, question: str | Sequence[Json] = "hi", *, path: str = "/v1", **fields: Any
    ) -> Json:
        """The whole completion; fails on any other status than 200."""
        response = await self.post(question, path=path, **fields)
        assert response.status_code == 200, response.text
        value = response.json()
        assert isinstance(value, dict)
        return value

    async def post(
        self,
        question: str | Sequence[Json] = "hi",
        *,
        path: str = "/v1",
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> httpx2.Response:
        body = self.body(question, **fields)
        with anyio.fail_after(PATIENCE):
            return await self.http.post(f"{path}/chat/completions", json=body, headers=headers)

    async def streamed(
        self,
        question: str | Sequence[Json] = "hi",
        *,
        path: str = "/v1",
        headers: Mapping[str, str] | None = None,
        on_chunk: Callable[[], None] = lambda: None,
        **fields: Any,
    ) -> Streamed:
        """The stream as a strict client reads it, to its end."""
        body = {**self.body(question, **fields), "stream": True}
        with anyio.fail_after(PATIENCE):
            async with self.http.stream(
                "POST", f"{path}/chat/completions", json=body, headers=headers
            ) as response:
                read = Streamed(response.status_code, dict(response.headers))
                if read.status != 200:
                    read.error = json.loads(await response.aread())["error"]
                    return read
                async with aclosing(lines(response)) as found:
                    async for line in found:
                        read.take(line)
                        if read.chunks:
                            on_chunk()
        read.check()
        return read

    async def said(
        self, question: str | Sequence[Json] = "hi", *, stream: bool, **fields: Any
    ) -> Json:
        """The answer as one message, with `finish_reason` and `usage`, however it was asked for."""
        if not stream:
            whole = await self.chat(question, **fields)
            message = whole["choices"][0]["message"]
            said = {k: v for k, v in message.items() if v is not None and k != "role"}
            finish = whole["choices"][0]["finish_reason"]
            return {"content": "", **said, "finish_reason": finish, "usage": whole.get("usage")}
        options = {"stream_options": {"include_usage": True}}
        read = await self.streamed(question, **{**options, **fields})
        assert read.error is None, read.error
        said = {"content": read.text}
        if read.reasoning:
            said["reasoning_content"] = read.reasoning
        if read.calls:
            said["tool_calls"] = read.calls
        return {**said, "finish_reason": read.finish_reason, "usage": read.usage}


@asynccontextmanager
async def bridged(
    *script: Item, then: Item | None = None, models: Sequence[str] = ("model-a",), **config: Any
) -> AsyncGenerator[Place]:
    """A bridge in front of a scripted model, its MCP servers connected.

    Sections of the configuration are keywords; `mcp_servers` is one scripted server when left out.
    """
    async with ScriptedInference(*script, then=then, models=models) as inference:
        config.setdefault("mcp_servers", {"tools": scripted_server()})
        server = {"base_url": inference.base_url, "max_retries": 0}
        server |= config.pop("inference", {})
        config.setdefault("inference_server", server)
        settings = Settings.model_validate(config)
        app = create_app(Loaded(settings))
        async with serving(app) as site:
            bridge: Bridge = app.state.bridge
            assert await bridge.settled(PATIENCE)
            async with httpx2.AsyncClient(base_url=site.url, timeout=PATIENCE) as http:
                yield Place(site.url, http, inference, bridge, app)
