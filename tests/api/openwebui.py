"""A twin of Open WebUI 0.12.4: what it sends, and what it makes of an answer for its next request.

The requests were recorded (`openwebui.json`: its tools without their descriptions, its tasks with
their prompts cut). How it reads a stream, runs its own tools and writes its history down again was
read in its sources and seen on the wire.

    chat = OpenWebUI(place, progress="openwebui")
    await chat.say("What is 6*7?")          # as many requests as it makes of one message
    chat.history                            # what its next request begins with
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.api.bridged import Place, Streamed

Json = dict[str, Any]
RECORDED: Json = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
TOOLS: list[Json] = RECORDED["tools"]
TASKS: dict[str, Json] = RECORDED["tasks"]
CLOCK = "get_current_timestamp"
NOW = '{"current_timestamp":1795644963}'
"""What its own clock answers."""
ENDED = {"completed", "failed", "rejected"}


class OpenWebUI:
    """One chat in its window."""

    def __init__(self, place: Place, *, progress: str = "", model: str = "model-a") -> None:
        self._place = place
        self._model = model
        self._headers = {"authorization": "Bearer none", "x-openwebui-task": ""}
        if progress:
            self._headers["x-mcp-progress"] = progress
        self.history: list[Json] = []
        self.items: list[Json] = []
        """What it shows of the last answer."""
        self.status: list[Json] = []
        """The status lines of the last answer; what is shown is the last one, unless hidden."""
        self.answers: list[Streamed] = []
        """The streams of the last answer."""

    async def say(self, text: str) -> str:
        """Send a message, run the tools of its own that are called, and return the text shown."""
        self.history.append({"role": "user", "content": text})
        return await self._answer()

    async def regenerate(self) -> str:
        """Have the last message answered again."""
        while self.history[-1]["role"] != "user":
            self.history.pop()
        return await self._answer()

    async def task(self, name: str, *, named: bool = True) -> Json:
        """A title, tags or follow-ups; `named`: the connection has a header that tells so."""
        headers = {**self._headers, "x-openwebui-task": name} if named else {}
        body = {**TASKS[name], "model": self._model}
        response = await self._place.http.post("/v1//chat/completions", json=body, headers=headers)
        assert response.status_code == 200, response.text
        value: Json = response.json()
        return value

    async def _answer(self) -> str:
        self.items, self.status, self.answers = [], [], []
        while True:
            read = await self._place.streamed(
                [*self.history, *messages_of(self.items)],
                path="/v1/",  # a base URL with a slash at its end
                headers=self._headers,
                model=self._model,
                stream_options={"include_usage": True},
                tools=TOOLS,
            )
            assert read.error is None, read.error
            self.answers.append(read)
            self._take(read)
            if not self._run_own_tools():
                break
        self.history += messages_of(self.items)
        return "".join(text_of(item) for item in self.items if item["type"] == "message")

    def _take(self, read: Streamed) -> None:
        for chunk in read.chunks:
            if str(chunk.get("type", "")).startswith("response."):
                self._add(chunk["item"])
                continue  # before it looks at `choices`
            if event := chunk.get("event"):
                self.status.append(event["data"])
            for choice in chunk["choices"]:
                self._take_delta(choice["delta"])
        for call in read.calls:
            (item,) = (one for one in self.items if one.get("call_id") == call["id"])
            item["arguments"] = call["function"]["arguments"]

    def _add(self, item: Json) -> None:
        """Add an item, or replace the one with its id."""
        for number, known in enumerate(self.items):
            if known.get("id") == item["id"]:
                self.items[number] = item
                return
        self.items.append(item)

    def _take_delta(self, delta: Json) -> None:
        for call in delta.get("tool_calls") or ():
            if "id" in call:
                self.items.append(
                    {
                        "type": "function_call",
                        "id": call["id"],
                        "call_id": call["id"],
                        "name": call["function"]["name"],
                        "status": "in_progress",
                    }
                )
        if text := delta.get("content"):
            if not self.items or self.items[-1]["type"] != "message":
                self.items.append({"type": "message", "content": []})
            self.items[-1]["content"].append({"type": "output_text", "text": text})

    def _run_own_tools(self) -> bool:
        """Answer each call that has no answer yet, also of tools that it never heard of."""
        answered = {one["call_id"] for one in self.items if one["type"] == "function_call_output"}
        calls = [one for one in self.items if one["type"] == "function_call"]
        open_calls = [one for one in calls if one["call_id"] not in answered]
        for call in open_calls:
            call["status"] = "completed"
            text = NOW if call["name"] == CLOCK else f"Tool {call['name']} not found"
            output = [{"type": "input_text", "text": text}]
            item = {"type": "function_call_output", "call_id": call["call_id"], "output": output}
            self.items.append({**item, "id": f"fco_{call['call_id']}", "status": "completed"})
        return bool(open_calls)


def messages_of(items: list[Json]) -> list[Json]:
    """Its `convert_output_to_messages`: what the items are in the next request."""
    answered = {one["call_id"] for one in items if one["type"] == "function_call_output"}
    messages: list[Json] = []
    texts: list[str] = []
    calls: list[Json] = []
    outputs: list[Json] = []

    def flush() -> None:
        if texts or calls:
            said: Json = {"role": "assistant", "content": "\n".join(texts)}
            messages.append({**said, "tool_calls": calls.copy()} if calls else said)
        texts.clear()
        calls.clear()

    def flush_outputs() -> None:
        if outputs:
            flush()
            messages.extend(outputs)
            outputs.clear()

    for item in items:
        match item["type"]:
            case "function_call_output":
                text = text_of(item, "output")
                outputs.append({"role": "tool", "tool_call_id": item["call_id"], "content": text})
            case "function_call":
                flush_outputs()
                if item["status"] in ENDED and item["call_id"] in answered:
                    function = {"name": item["name"], "arguments": item["arguments"]}
                    calls.append({"id": item["call_id"], "type": "function", "function": function})
            case "message":
                flush_outputs()
                texts.append(text_of(item))
    flush_outputs()
    flush()
    return list(paired(messages))


def paired(messages: list[Json]) -> Iterator[Json]:
    """Its `reconcile_tool_pairs`: calls and results that do not stand together are dropped."""
    wanted: set[str] = set()
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] in wanted:
                yield message
            continue
        calls = message.get("tool_calls") or []
        after = messages[number + 1 :]
        end = next((n for n, one in enumerate(after) if one["role"] != "tool"), len(after))
        given = {one["tool_call_id"] for one in after[:end]}
        kept = [call for call in calls if call["id"] in given]
        wanted = {call["id"] for call in kept}
        said = {key: value for key, value in message.items() if key != "tool_calls"}
        if kept:
            yield {**said, "tool_calls": kept}
        elif not calls or said["content"].strip():
            yield said


def text_of(item: Json, field: str = "content") -> str:
    return "".join(part["text"] for part in item[field])
