"""The demo from beginning to end, with real child processes."""

import os
import re
import signal
import socket
import sys
from pathlib import Path

import anyio
import anyio.abc
import openai
import pytest

from mcp_bridge.demo.finder import Candidate
from mcp_bridge.demo.run import data_folder, run_demo
from tests.fakes import ScriptedInference, answer
from tests.mcp_client.running import children, dead
from tests.processes import started

TOOLS = [
    ("c1", "current_time", '{"timezone": "Asia/Tokyo"}'),
    ("c2", "calculate", '{"expression": "17 * 23"}'),
]


async def test_without_an_inference_server_the_scripted_model_answers_through_the_tools(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = children()
    with socket.create_server(("127.0.0.1", 0)) as taken, anyio.fail_after(60):
        port = taken.getsockname()[1]
        assert await run_demo(once=True, port=port, where=()) == 0
    out = capsys.readouterr().out
    assert "the\nbuilt-in model answers: scripted-demo. It is no language model" in out
    assert f"Port {port} cannot be had, so the bridge takes a free one." in out
    assert "clock (3 tools), calculator (1 tool), notes (5 tools)" in out
    assert '[tool] current_time(timezone="Asia/Tokyo")\n         -> { "timezone":' in out
    assert '[tool] calculate(expression="17 * 23")\n' in out
    assert re.search(r"In Asia/Tokyo it is \d\d:\d\d on \w+, .+\. 17 \* 23 = 391\.", out)
    assert "not a language model" in out
    assert re.search(r"base URL   http://127\.0\.0\.1:\d+/v1\n", out)
    assert children() == before


async def test_an_llm_that_is_found_and_answers_right_is_a_success(
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = answer(calls=TOOLS), answer("It is late in Tokyo, and 17 * 23 is 391.")
    async with ScriptedInference(*script) as llm:
        with anyio.fail_after(60):
            where = (Candidate("Ollama", llm.base_url),)
            assert await run_demo(once=True, port=0, where=where) == 0
    out = capsys.readouterr().out
    assert "Inference server: Ollama (found by its usual port), with the model model-a." in out
    assert "It is late in Tokyo, and 17 * 23 is 391." in out


async def test_an_llm_that_calls_no_tools_is_told_of_plainly_and_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with ScriptedInference(then=answer("About 400, I guess.")) as llm:
        with anyio.fail_after(60):
            where = (Candidate("Ollama", llm.base_url),)
            assert await run_demo(once=True, port=0, where=where) == 1
    out = capsys.readouterr().out
    assert "not answered rightly: no tool ran: this model may not be able to call tools" in out


async def test_it_is_never_served_beyond_loopback(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run_demo(once=True, host="0.0.0.0", port=0, where=()) == 1
    assert "listens on loopback only" in capsys.readouterr().out


async def test_an_address_that_is_not_here_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run_demo(once=True, host="127.0.0.300", port=0, where=()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_stays_up_for_clients_until_a_signal_and_leaves_no_child(
    number: signal.Signals, tmp_path: Path
) -> None:
    async with ScriptedInference(then=answer("391")) as llm:
        env = {"OPENAI_BASE_URL": llm.base_url, "XDG_DATA_HOME": str(tmp_path)}
        command = (sys.executable, "-m", "mcp_bridge", "demo", "--port", "0")
        with anyio.fail_after(60):
            async with started(command, env=os.environ | env) as demo:
                out = await read_until(demo, "Ctrl-C ends the demo.")
                made = children_of(demo.pid)
                [url] = re.findall(r"base URL   (\S+)", out)
                assert await ask(url) == "391"
                demo.send_signal(number)
                assert await demo.wait() == 0
    assert len(made) >= 3
    await dead(*made)
    assert (tmp_path / "mcp-bridge" / "notes").is_dir()


async def ask(url: str) -> str | None:
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(base_url=url, api_key="any", http_client=http) as client:
        answered = await client.chat.completions.create(
            model="model-a", messages=[{"role": "user", "content": "17 * 23?"}]
        )
    return answered.choices[0].message.content


async def read_until(process: anyio.abc.Process, end: str) -> str:
    assert process.stdout is not None
    out = ""
    while end not in out:
        out += (await process.stdout.receive()).decode()
    return out


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


@pytest.mark.parametrize(
    ("named", "folder"),
    [("/data", "/data"), ("relative", "~/.local/share"), ("", "~/.local/share")],
)
def test_notes_are_kept_where_the_user_keeps_data(named: str, folder: str) -> None:
    assert data_folder({"XDG_DATA_HOME": named}) == Path(folder).expanduser()
