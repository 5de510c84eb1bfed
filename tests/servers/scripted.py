"""A stdio MCP server of the old protocol era, without the SDK, so that it can misbehave.

    python -m tests.servers.scripted [behaviour ...]        (or run the file itself)

Behaviours: noise, exit-on-unknown, ignore-unknown, hang-initialize, bad-tools, endless-cursor,
paged, broken-list, no-version, strange-version, stubborn, grandchild, crash, slow-start, prompts,
deaf, chatty-stderr, tool=NAME (one more tool, which answers with its arguments). The other tools
are the functions below. With SCRIPT_LOG set, every message that it receives, and every call that it
executes, is a JSON line in that file.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

BEHAVIOURS = set(sys.argv[1:])
LOG = os.environ.get("SCRIPT_LOG")
ANSWERS: dict[Any, Any] = {}
ANSWERED = threading.Condition()
CANCELLED: set[Any] = set()
EXTRA = [name for key, _, name in (word.partition("=") for word in sys.argv[1:]) if key == "tool"]
LOCK = threading.Lock()


def log(entry: Any) -> None:
    if LOG:
        with LOCK, open(LOG, "a") as file:
            file.write(json.dumps(entry) + "\n")


def write(text: str) -> None:
    with LOCK:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def send(message: Any) -> None:
    if "noise" in BEHAVIOURS:
        write("Warning: something is old\n{not json\n42\n" + json.dumps({"level": "info"}))
    write(json.dumps({"jsonrpc": "2.0", **message}))


def answer(request_id: Any, result: Any) -> None:
    send({"id": request_id, "result": result})


def text(value: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": str(value)}], "isError": False}


def notify(method: str, params: dict[str, Any] | None = None) -> None:
    send({"method": method, "params": params or {}})


def ask(method: str, params: dict[str, Any]) -> Any:
    """Send a request to the client and wait for its answer."""
    request_id = f"ask-{time.monotonic_ns()}"
    send({"id": request_id, "method": method, "params": params})
    with ANSWERED:
        ANSWERED.wait_for(lambda: request_id in ANSWERS, timeout=10)
        return ANSWERS.get(request_id)


def call(request_id: Any, params: dict[str, Any]) -> None:
    name, arguments = params["name"], params.get("arguments") or {}
    token = (params.get("_meta") or {}).get("progressToken")
    match name:
        case "echo":
            answer(request_id, text(arguments.get("text", "")))
        case "meta":
            answer(request_id, text(json.dumps(params.get("_meta") or {})))
        case "big":
            answer(request_id, text("x" * int(arguments["size"])))
        case "environment":
            answer(request_id, text(json.dumps({"env": dict(os.environ), "cwd": os.getcwd()})))
        case "die":
            log({"executed": "die"})
            os._exit(3)
        case "read_and_die" | "set_and_die" | "die_once":
            flag = (LOG or "") + ".died"
            log({"executed": name})
            if not os.path.exists(flag):
                open(flag, "w").close()
                os._exit(3)
            answer(request_id, text("again"))
        case "answer_and_die":
            answer(request_id, text("last words"))
            os._exit(0)
        case "not_an_object":
            send({"id": request_id, "result": "just text"})
        case "broken_json":
            write(f'{{"jsonrpc": "2.0", "id": {request_id}, "result": {{"content": [')
        case "error_without_code":
            send({"id": request_id, "error": {"message": "no code"}})
        case "error_as_text":
            send({"id": request_id, "error": "it failed"})
        case "missing_jsonrpc":
            write(json.dumps({"id": request_id, "result": text("bare")}))
        case "float_id":
            write(json.dumps({"jsonrpc": "2.0", "id": float(request_id), "result": text("float")}))
        case "string_id":
            write(json.dumps({"jsonrpc": "2.0", "id": str(request_id), "result": text("string")}))
        case "wrong_id":
            answer(987654, text("not yours"))
            answer(request_id, text("yours"))
        case "twice":
            answer(request_id, text("first"))
            answer(request_id, text("second"))
        case "bad_bytes":
            with LOCK:
                sys.stdout.buffer.write(
                    b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"\xff\\ud800"}]}}\n'
                    % request_id
                )
                sys.stdout.buffer.flush()
        case "refuse":
            send({"id": request_id, "error": {"code": -32050, "message": "no", "data": {"a": 1}}})
        case "fail":
            answer(request_id, {**text("it went wrong"), "isError": True})
        case "hang":
            notify("notifications/message", {"level": "info", "data": "hanging"})
        case "give":
            log({"executed": name, "arguments": arguments})
            answer(request_id, arguments["result"])
        case "slow":
            for step in range(int(arguments["steps"])):
                time.sleep(float(arguments["pause"]))
                if request_id in CANCELLED:
                    return
                notify(
                    "notifications/progress",
                    {"progressToken": token, "progress": step + 1, "message": f"step {step + 1}"},
                )
            answer(request_id, text("done"))
        case "ask":
            reply = ask(arguments["method"], arguments.get("params") or {})
            answer(request_id, text(json.dumps(reply)))
        case "grow":
            for tool in arguments["names"]:
                EXTRA.append(tool)
                notify("notifications/tools/list_changed")
            answer(request_id, text("grown"))
        case "announce":
            notify(arguments["method"], arguments.get("params"))
            answer(request_id, text("announced"))
        case "say":
            sys.stderr.write(arguments["text"] + "\n")
            sys.stderr.flush()
            answer(request_id, text("said"))
        case str() if name in EXTRA:
            answer(request_id, text(json.dumps(arguments)))
        case _:
            send({"id": request_id, "error": {"code": -32602, "message": f"Unknown tool: {name}"}})


NAMES = (
    "echo meta big environment die answer_and_die not_an_object broken_json error_without_code "
    "error_as_text missing_jsonrpc float_id string_id wrong_id twice bad_bytes refuse fail hang "
    "slow ask grow announce say die_once give"
).split()


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": f"Tool {name}", "inputSchema": {"type": "object"}, **more}


def tools() -> list[Any]:
    found: list[Any] = [tool(name, **{"x-vendor": {"kept": True}}) for name in NAMES]
    found.append(tool("read_and_die", annotations={"readOnlyHint": True}))
    found.append(tool("set_and_die", annotations={"idempotentHint": True}))
    found += [tool(name) for name in EXTRA]
    if "bad-tools" in BEHAVIOURS:
        found += [
            {"name": "no_schema"},
            {"name": "null_schema", "inputSchema": None},
            {"name": 5, "inputSchema": {"type": "object"}},
            "not an object",
            tool("echo"),
            {"name": "list_schema", "inputSchema": []},
            {"name": "odd", "inputSchema": {"type": "object"}, "icons": [{}], "annotations": 7},
        ]
    return found


def list_tools(request_id: Any, params: dict[str, Any]) -> None:
    cursor = params.get("cursor")
    if "broken-list" in BEHAVIOURS:
        send({"id": request_id, "error": {"code": -32603, "message": "database is locked"}})
    elif "endless-cursor" in BEHAVIOURS:
        answer(request_id, {"tools": [] if cursor else tools(), "nextCursor": "again"})
    elif "paged" in BEHAVIOURS:
        start = int(cursor or 0)
        page: dict[str, Any] = {"tools": tools()[start : start + 5]}
        if start + 5 < len(tools()):
            page["nextCursor"] = str(start + 5)
        answer(request_id, page)
    else:
        answer(request_id, {"tools": tools()})


def initialize(request_id: Any, params: dict[str, Any]) -> None:
    if "hang-initialize" in BEHAVIOURS:
        return
    result: dict[str, Any] = {
        "protocolVersion": params["protocolVersion"],
        "capabilities": {"tools": {"listChanged": True}},
        "serverInfo": {"name": "scripted", "version": "1"},
        "instructions": "Be scripted.",
    }
    if "prompts" in BEHAVIOURS:
        result["capabilities"] |= {"prompts": {}, "resources": {"subscribe": True}}
    if "no-version" in BEHAVIOURS:
        result["serverInfo"] = {"name": "scripted"}
    if "strange-version" in BEHAVIOURS:
        result["protocolVersion"] = "2030-01-01"
    answer(request_id, result)


def handle(message: dict[str, Any]) -> None:
    request_id, params = message.get("id"), message.get("params") or {}
    match message.get("method"):
        case "initialize":
            initialize(request_id, params)
        case "tools/list":
            list_tools(request_id, params)
        case "tools/call":
            threading.Thread(target=call, args=(request_id, params), daemon=True).start()
        case "prompts/list" if "prompts" in BEHAVIOURS:
            answer(request_id, {"prompts": [{"name": "hello", "x-vendor": 1}, {"bad": True}]})
        case "prompts/get" if "prompts" in BEHAVIOURS:
            answer(request_id, {"messages": [], "x-name": params["name"]})
        case "resources/list" if "prompts" in BEHAVIOURS:
            answer(request_id, {"resources": [{"uri": "file:///a", "name": "a"}]})
        case "resources/subscribe" if "prompts" in BEHAVIOURS:
            answer(request_id, {})
        case "ping":
            answer(request_id, {})
        case "notifications/cancelled":
            CANCELLED.add(params.get("requestId"))
        case str() as method if request_id is not None:
            if "exit-on-unknown" in BEHAVIOURS:
                sys.exit(f"unknown method {method}")
            if "ignore-unknown" not in BEHAVIOURS:
                error = {"code": -32601, "message": f"Method not found: {method}"}
                send({"id": request_id, "error": error})
        case None:
            with ANSWERED:
                ANSWERS[request_id] = message.get("result", message.get("error"))
                ANSWERED.notify_all()


def main() -> None:
    if "crash" in BEHAVIOURS:
        sys.stderr.write("Traceback: out of luck\n")
        sys.exit(7)
    if "grandchild" in BEHAVIOURS:
        sleeper = subprocess.Popen(["sleep", "1000"])
        log({"grandchild": sleeper.pid})
    log({"pid": os.getpid()})
    if "stubborn" in BEHAVIOURS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "deaf" in BEHAVIOURS:
        handled = 0
        for line in sys.stdin:
            handle(json.loads(line))
            handled += "tools/list" in line
            if handled:
                time.sleep(1000)
    for line in sys.stdin:
        message = json.loads(line)
        log(message)
        handle(message)
    while "stubborn" in BEHAVIOURS:
        time.sleep(1)


if __name__ == "__main__":
    main()
