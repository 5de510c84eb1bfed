"""What is written on a stream, and when."""

import json
from typing import Any

import anyio
import pytest

from mcp_bridge.agent.events import Finished
from mcp_bridge.api.stream import StreamWriter, event, in_whole_lines
from mcp_bridge.inference.splice import Mould, Run

Json = dict[str, Any]
END = b"data: [DONE]\n\n"


class SlowClient:
    """A client that reads nothing until `reads` is set; `bodies` is what it gets."""

    def __init__(self) -> None:
        self.reads = anyio.Event()
        self.bodies: list[bytes] = []

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            if message["body"] and not self.reads.is_set():
                await self.reads.wait()
            assert END not in self.bodies, "nothing comes after the end"
            self.bodies.append(message["body"])


async def test_a_stream_that_waits_for_its_client_is_not_silent() -> None:
    """The comment would wait too, and be written when the answer has ended meanwhile."""
    client = SlowClient()
    writer = StreamWriter(client.send, interval=1e-9)

    async def answer() -> None:
        await writer.chunks([{"choices": []}])
        await writer.finish(Finished(dict, tuple))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(writer.keep_alive)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        client.reads.set()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert client.bodies == [b'data: {"choices":[]}\n\n', END]


async def test_headers_go_out_with_the_first_chunk_or_when_there_is_nothing_to_show_yet() -> None:
    """Servers hold them back until something follows, and each write has its price."""
    client = SlowClient()
    client.reads.set()
    writer = StreamWriter(client.send, interval=60)
    await writer.start({"x-request-id": "r"})
    assert client.bodies == []
    await writer.chunks([])
    await writer.chunks([])
    assert client.bodies == [b""]
    await writer.busy()
    await writer.chunks([{"choices": []}])
    assert client.bodies == [b"", b": tools are running\n\n", b'data: {"choices":[]}\n\n']


@pytest.mark.parametrize("character", ["\u0085", "\u2028", "\u2029"])
@pytest.mark.parametrize("spliced", [False, True])
def test_an_event_is_one_line_for_every_client(character: str, spliced: bool) -> None:
    text = f"a{character}b\u20ac"
    chunk: Json = {"choices": [{"index": 0, "delta": {"content": text}}]}
    literal = json.dumps(text, ensure_ascii=False).encode()[1:-1]
    run = Run(Mould(chunk, "content", b"", b""), [literal], [text])
    written = in_whole_lines(event(run if spliced else chunk))
    [line] = written.decode().rstrip("\n").splitlines()
    assert json.loads(line.removeprefix("data: ")) == chunk
