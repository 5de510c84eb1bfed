"""All servers as one: names, raw results, errors, prompts, resources, pages, both eras."""

from typing import Any

import anyio
import pytest

from mcp_bridge.types import Json
from tests.mcp_server.box import Box, boxes, text, tool
from tests.mcp_server.wire import NEW, OLD, Refused, Wire, wire

VERSIONS = (OLD, NEW)
both_eras = pytest.mark.parametrize("version", VERSIONS)


def names(page: Json, kind: str = "tools", key: str = "name") -> list[str]:
    return [item[key] for item in page[kind]]


@both_eras
@pytest.mark.parametrize("behind", ["legacy", "2026-07-28"])
async def test_results_arrive_as_the_server_sent_them(version: str, behind: str) -> None:
    sent: Json = {
        "content": [
            {"type": "text", "text": "ä\u2028", "x-vendor": None},
            {"type": "x-hologram", "data": [1, 2.5, None]},
            {"type": "image", "data": "AAAA", "annotations": {"priority": 0.3}},
        ],
        "structuredContent": {"rows": [{"id": 1, "gone": None}]},
        "isError": False,
        "_meta": {"vendor/cost": 0.25},
        "x-vendor": {"kept": [True]},
    }
    box = Box(tools=[tool("report")], answers={"report": sent})
    async with boxes(behind, a=box) as house, wire(house, version) as client:
        got = await client.call("report")
    assert got["_meta"].pop("vendor/cost") == 0.25
    for field in ("content", "structuredContent", "isError", "x-vendor"):
        assert got[field] == sent[field]


@both_eras
async def test_a_failed_tool_stays_a_result_and_a_refusal_stays_an_error(version: str) -> None:
    from mcp.shared.exceptions import MCPError

    async def refuse(context: Any, params: Json) -> Json:
        raise MCPError(-32050, "out of paper", {"tray": 2})

    failed = {**text("no such file"), "isError": True}
    box = Box(tools=[tool("fail"), tool("refuse")], answers={"fail": failed, "refuse": refuse})
    async with boxes(a=box) as house, wire(house, version) as client:
        assert (await client.call("fail"))["isError"] is True
        with pytest.raises(Refused) as refused:
            await client.call("refuse")
    assert refused.value.error == {"code": -32050, "message": "out of paper", "data": {"tray": 2}}


@both_eras
async def test_definitions_are_listed_as_the_server_sent_them(version: str) -> None:
    definition = tool(
        "files.read-all",
        title="Read",
        annotations={"readOnlyHint": True, "x-level": 3},
        outputSchema={"type": "object", "properties": {"n": {"type": "integer"}}},
        icons=[{"src": "https://icons.example/r.png", "theme": "dark"}],
        _meta={"ui/resourceUri": "ui://read"},
        inputSchema={"type": "object", "$defs": {"x": {"const": None}}, "x-order": ["b", "a"]},
    )
    box = Box(tools=[definition], prompts=[{"name": "greet", "x-vendor": 1}])
    async with boxes(a=box) as house, wire(house, version) as client:
        assert (await client.ask("tools/list"))["tools"] == [definition]
        assert (await client.ask("prompts/list"))["prompts"] == box.prompts


async def test_an_output_schema_that_the_old_era_cannot_read_is_left_out_there() -> None:
    schema = {"type": "array", "items": {"type": "string"}}
    box = Box(
        tools=[tool("words", outputSchema=schema)],
        answers={"words": {**text("[]"), "structuredContent": ["a", "b"]}},
    )
    async with boxes(a=box) as house, wire(house, OLD) as old, wire(house, NEW) as new:
        assert "outputSchema" not in (await old.ask("tools/list"))["tools"][0]
        assert "structuredContent" not in await old.call("words")
        assert (await new.ask("tools/list"))["tools"][0]["outputSchema"] == schema
        assert (await new.call("words"))["structuredContent"] == ["a", "b"]


async def test_the_new_era_gets_what_it_requires_and_the_old_one_does_not() -> None:
    box = Box(tools=[tool("one")], answers={"one": text("1")})
    async with boxes(a=box) as house, wire(house, OLD) as old, wire(house, NEW) as new:
        listed, called = await new.ask("tools/list"), await new.call("one")
        assert {"resultType", "ttlMs", "cacheScope", "_meta"} <= listed.keys()
        assert called["resultType"] == "complete"
        assert new.greeting["supportedVersions"] == [NEW]
        assert await old.call("one") == text("1")
        assert "resultType" not in await old.ask("tools/list")


# Names.


async def test_the_first_server_keeps_a_name_and_a_later_one_is_prefixed() -> None:
    one = Box(tools=[tool("echo")], prompts=[{"name": "p"}], answers={"echo": text("one")})
    two = Box(tools=[tool("echo")], prompts=[{"name": "p"}], answers={"echo": text("two")})
    one.answers["p"], two.answers["p"] = {"messages": [1]}, {"messages": [2]}
    async with boxes(one=one, two=two) as house, wire(house) as client:
        assert names(await client.ask("tools/list")) == ["echo", "two__echo"]
        assert names(await client.ask("prompts/list"), "prompts") == ["p", "two__p"]
        assert (await client.call("two__echo"))["content"][0]["text"] == "two"
        assert (await client.ask("prompts/get", {"name": "two__p"}))["messages"] == [2]
    assert two.asked("tools/call")[0]["name"] == "echo"
    assert two.asked("prompts/get")[0]["name"] == "p"


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("collision", ["echo", "two__echo"]),
        ("always", ["one__echo", "two__echo"]),
        ("never", ["echo"]),
    ],
)
async def test_the_prefix_policy_names_tools(prefix: str, expected: list[str]) -> None:
    one, two = Box(tools=[tool("echo")]), Box(tools=[tool("echo")])
    settings = {"tools": {"prefix": prefix}}
    async with boxes(settings=settings, one=one, two=two) as house, wire(house) as client:
        assert names(await client.ask("tools/list")) == expected


async def test_a_name_that_models_do_not_allow_is_kept_for_mcp_clients() -> None:
    box = Box(tools=[tool("files.read/all")], answers={"files.read/all": text("read")})
    async with boxes(a=box) as house, wire(house) as client:
        assert names(await client.ask("tools/list")) == ["files.read/all"]
        assert (await client.call("files.read/all"))["content"][0]["text"] == "read"
        assert (await client.call("files_read_all"))["content"][0]["text"] == "read"


async def test_an_unknown_tool_is_refused_with_those_that_are_like_it() -> None:
    async with boxes(a=Box(tools=[tool("read_file")])) as house, wire(house) as client:
        with pytest.raises(Refused) as refused:
            await client.call("read_fil")
    assert refused.value.error["code"] == -32602
    assert "read_file" in refused.value.error["message"]


# Resources.


async def test_resources_with_the_same_uri_are_both_there() -> None:
    uri = "notes://today"
    one = Box(resources=[{"uri": uri, "name": "n"}], answers={uri: contents(uri, "one")})
    two = Box(
        tools=[tool("link")],
        resources=[{"uri": uri, "name": "n"}],
        answers={
            uri: contents(uri, "two"),
            "link": {
                "content": [
                    {"type": "resource_link", "uri": uri, "name": "n"},
                    {"type": "resource", "resource": {"uri": uri, "text": "two"}},
                    {"type": "resource_link", "uri": "notes://other", "name": "o"},
                ]
            },
        },
    )
    async with boxes(one=one, two=two) as house, wire(house) as client:
        listed = names(await client.ask("resources/list"), "resources", "uri")
        assert listed == [uri, "mcp-bridge://two/notes://today"]
        read = await client.ask("resources/read", {"uri": listed[1]})
        assert read["contents"][0] == {"uri": listed[1], "text": "two"}
        link, embedded, other = (await client.call("link"))["content"]
        assert link["uri"] == embedded["resource"]["uri"] == listed[1]
        assert other["uri"] == "notes://other"
        assert (await client.ask("resources/read", {"uri": uri}))["contents"][0]["text"] == "one"


def contents(uri: str, words: str) -> Json:
    return {"contents": [{"uri": uri, "text": words}]}


@both_eras
async def test_templates_and_unlisted_resources_are_found_at_their_server(version: str) -> None:
    one = Box(resources=[{"uri": "a://1", "name": "1"}], capabilities={"resources": {}})
    two = Box(templates=[{"uriTemplate": "db://{table}/{row}", "name": "rows"}])
    two.answers = {
        "db://users/7": contents("db://users/7", "Ada"),
        "hidden://x": contents("hidden://x", "found"),
    }
    async with boxes(one=one, two=two) as house, wire(house, version) as client:
        found = await client.ask("resources/templates/list")
        assert found["resourceTemplates"] == two.templates
        row = await client.ask("resources/read", {"uri": "db://users/7"})
        assert row["contents"][0]["text"] == "Ada"
        hidden = await client.ask("resources/read", {"uri": "hidden://x"})
        assert hidden["contents"][0]["text"] == "found"
    assert len(one.asked("resources/read")) == 1  # only the unlisted one was looked for there


@both_eras
async def test_completion_is_asked_where_the_prompt_is(version: str) -> None:
    answer = {"completion": {"values": ["paris"], "hasMore": True, "total": 40}}
    one = Box(prompts=[{"name": "p"}])
    two = Box(prompts=[{"name": "p"}], answers={"completion/complete": answer})
    question = {"argument": {"name": "city", "value": "pa"}}
    async with boxes(one=one, two=two) as house, wire(house, version) as client:
        ref = {"type": "ref/prompt", "name": "two__p"}
        got = await client.ask("completion/complete", {"ref": ref, **question})
        assert got["completion"] == answer["completion"]
    assert two.asked("completion/complete")[0]["ref"]["name"] == "p"


@both_eras
async def test_what_does_not_exist_is_refused_by_name(version: str) -> None:
    async with boxes(a=Box(tools=[tool("t")])) as house, wire(house, version) as client:
        asked = [
            ("prompts/get", {"name": "gone"}, "Unknown prompt: gone"),
            ("completion/complete", completion("ref/prompt", name="gone"), "Unknown name: gone"),
        ]
        for method, params, words in asked:
            with pytest.raises(Refused) as refused:
                await client.ask(method, params)
            assert refused.value.error["code"] == -32602
            assert refused.value.error["message"] == words


@pytest.mark.parametrize(("version", "code"), [(OLD, -32002), (NEW, -32602)])
async def test_a_resource_that_nobody_has_is_refused_in_the_words_of_the_era(
    version: str, code: int
) -> None:
    async with boxes() as house, wire(house, version) as client:
        with pytest.raises(Refused) as refused:
            await client.ask("resources/read", {"uri": "gone://x"})
    assert refused.value.error["code"] == code
    assert refused.value.error["data"] == {"uri": "gone://x"}


async def test_a_server_that_completes_nothing_suggests_nothing() -> None:
    template = {"uriTemplate": "db://{table}", "name": "t"}
    box = Box(templates=[template], capabilities={"completions": None})
    async with boxes("legacy", a=box) as house, wire(house) as client:
        ref = completion("ref/resource", uri="db://{table}")
        answer = await client.ask("completion/complete", ref)
    assert answer["completion"] == {"values": [], "total": 0, "hasMore": False}


def completion(kind: str, **ref: str) -> Json:
    return {"ref": {"type": kind, **ref}, "argument": {"name": "x", "value": ""}}


async def test_a_template_that_we_cannot_read_does_not_hide_the_others() -> None:
    templates = [
        {"uriTemplate": "x://{open", "name": "bad"},
        {"uriTemplate": "y://{a}", "name": "y"},
    ]
    box = Box(templates=templates, answers={"y://1": contents("y://1", "one")})
    async with boxes(a=box) as house, wire(house) as client:
        listed = (await client.ask("resources/templates/list"))["resourceTemplates"]
        assert listed == templates
        read = await client.ask("resources/read", {"uri": "y://1"})
        assert read["contents"][0]["text"] == "one"


async def test_a_toolset_that_goes_away_takes_its_tools_along() -> None:
    keys = [{"key": "k", "name": "ada", "toolset": "mine"}]
    settings: Json = {
        "toolsets": {"mine": {"include": ["a:*"]}},
        "security": {"auth": {"enabled": True, "api_keys": keys}},
    }
    box = Box(tools=[tool("t")], answers={"t": text("1")})
    async with boxes(settings=settings, a=box) as house, wire(house, key="k") as client:
        await client.call("t")
        before = house.bridge.settings
        house.bridge.apply(before.model_copy(update={"toolsets": {}}))
        with pytest.raises(Refused) as refused:
            await client.call("t")
    assert "toolset" in refused.value.error["message"]


# Pages, words about itself, what is not known.


@both_eras
async def test_a_long_list_comes_in_pages(version: str) -> None:
    box = Box(tools=[tool(f"tool{n}") for n in range(2000)])
    async with boxes(a=box) as house, wire(house, version) as client:
        first = await client.ask("tools/list")
        second = await client.ask("tools/list", {"cursor": first["nextCursor"]})
        assert "nextCursor" not in second
        assert names(first) + names(second) == names({"tools": box.tools})
        with pytest.raises(Refused) as refused:
            await client.ask("tools/list", {"cursor": "made up"})
    assert refused.value.error["code"] == -32602


@both_eras
async def test_it_introduces_itself_with_what_its_servers_say(version: str) -> None:
    extension = {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html"]}}
    one = Box(tools=[tool("t")], instructions="Use t.", capabilities={"extensions": extension})
    two = Box(instructions="Be kind.")
    async with boxes(one=one, two=two) as house, wire(house, version) as client:
        greeting = client.greeting
    assert greeting["instructions"] == "one: Use t.\n\ntwo: Be kind."
    assert greeting["capabilities"]["extensions"] == extension
    assert greeting["capabilities"]["tools"] == {"listChanged": True}
    assert greeting["capabilities"]["resources"]["subscribe"] is True


@both_eras
async def test_a_method_nobody_knows_goes_to_the_only_server_there_is(version: str) -> None:
    box = Box(answers={"vendor/paint": {"colour": "blue"}})
    async with boxes(a=box) as house, wire(house, version) as client:
        assert (await client.ask("vendor/paint", {"wall": 1}))["colour"] == "blue"
    async with boxes(a=box, b=Box()) as house, wire(house, version) as client:
        with pytest.raises(Refused) as refused:
            await client.ask("vendor/paint", {"wall": 1})
    assert refused.value.error["code"] == -32601


async def test_a_key_for_a_part_of_a_server_does_not_reach_around_it() -> None:
    box = Box(tools=[tool("one"), tool("two")], answers={"vendor/paint": {"colour": "blue"}})
    keys = [
        {"key": "part", "name": "a", "tools": ["a:one"]},
        {"key": "less", "name": "b", "tools": ["!a:two"]},
        {"key": "all", "name": "c", "tools": ["a:*"]},
    ]
    settings = {"security": {"auth": {"enabled": True, "api_keys": keys}}}
    async with boxes(settings=settings, a=box) as house:
        for key in ("part", "less"):
            async with wire(house, key=key) as client:
                with pytest.raises(Refused) as refused:
                    await client.ask("vendor/paint")
                assert refused.value.error["code"] == -32601
        async with wire(house, key="all") as client:
            assert (await client.ask("vendor/paint"))["colour"] == "blue"


async def test_a_task_belongs_to_the_one_who_began_it() -> None:
    one = Box(tools=[tool("slow")], answers={"tasks/get": {"taskId": "t1", "status": "working"}})
    one.answers["slow"] = {"task": {"taskId": "t1", "status": "working"}}
    keys = [{"key": "k1", "name": "ada"}, {"key": "k2", "name": "bob"}]
    settings = {"security": {"auth": {"enabled": True, "api_keys": keys}}}
    async with (
        boxes(settings=settings, one=one, two=Box()) as house,
        wire(house, key="k1") as ada,
        wire(house, key="k2") as bob,
    ):
        params = {"name": "slow", "arguments": {}, "task": {"ttl": 1000}}
        assert (await ada.ask("tools/call", params))["task"]["taskId"] == "t1"
        assert (await ada.ask("tasks/get", {"taskId": "t1"}))["status"] == "working"
        with pytest.raises(Refused):
            await bob.ask("tasks/get", {"taskId": "t1"})
    assert one.asked("tools/call")[0]["task"] == {"ttl": 1000}


async def test_servers_that_count_their_tasks_alike_keep_each_their_own() -> None:
    def counting(name: str) -> Box:
        box = Box(tools=[tool(name)])
        box.answers[name] = {"task": {"taskId": "t1", "status": "working"}}
        box.answers["tasks/get"] = {"taskId": "t1", "status": "working", "statusMessage": name}
        related = {"io.modelcontextprotocol/related-task": {"taskId": "t1"}}
        box.answers["tasks/result"] = {**text(name), "_meta": related}
        return box

    async with (
        boxes("legacy", one=counting("first"), two=counting("second")) as house,
        wire(house) as ada,
        wire(house) as bob,
    ):
        begun: list[tuple[Wire, str, Json]] = []
        for client, name in ((ada, "first"), (ada, "second"), (bob, "second"), (bob, "first")):
            call = {"name": name, "arguments": {}, "task": {}}
            began = await client.ask("tools/call", call)
            begun.append((client, name, {"taskId": began["task"]["taskId"]}))
        for client, name, task in begun:
            status = await client.ask("tasks/get", task)
            assert (status["statusMessage"], status["taskId"]) == (name, task["taskId"])
            ended = await client.ask("tasks/result", task)
            assert ended["content"] == text(name)["content"]
            assert ended["_meta"] == {"io.modelcontextprotocol/related-task": task}


# What the client's request carries.


@both_eras
async def test_the_meta_of_a_request_reaches_the_server(version: str) -> None:
    box = Box(tools=[tool("t")], answers={"t": text("ok")})
    async with boxes(a=box) as house, wire(house, version) as client:
        meta = {"traceparent": "00-1", "vendor/x": {"y": 1}, "progressToken": "mine"}
        await client.ask("tools/call", {"name": "t", "_meta": meta})
    seen = box.asked("tools/call")[0]["_meta"]
    assert seen["traceparent"] == "00-1"
    assert seen["vendor/x"] == {"y": 1}
    assert seen["progressToken"] != "mine"


@both_eras
async def test_a_call_with_wrong_params_is_refused_and_not_sent_on(version: str) -> None:
    box = Box(tools=[tool("t")], answers={"t": text("ok")})
    async with boxes(a=box) as house, wire(house, version) as client:
        with pytest.raises(Refused) as refused:
            await client.ask("tools/call", {"name": "t", "arguments": "none"})
    assert refused.value.error["code"] == -32602
    assert not box.asked("tools/call")


async def test_ping_is_answered_in_the_old_era_only() -> None:
    async with boxes(a=Box()) as house, wire(house, OLD) as old, wire(house, NEW) as new:
        assert await old.ask("ping") == {}
        with pytest.raises(Refused) as refused:
            await new.ask("ping")
    assert refused.value.error["code"] == -32601


async def test_the_log_level_of_a_client_is_its_own() -> None:
    async def speak(context: Any, params: Json) -> Json:
        for level in ("debug", "info", "error"):
            note = {"level": level, "data": level, "logger": "box"}
            await context.session._request_outbound.notify("notifications/message", note)
        return text("said")

    box = Box(tools=[tool("speak")], answers={"speak": speak, "logging/setLevel": {}})
    async with boxes("legacy", a=box) as house, wire(house) as loud, wire(house) as quiet:
        await loud.ask("logging/setLevel", {"level": "debug"})
        await quiet.ask("logging/setLevel", {"level": "error"})
        await loud.call("speak")
        await quiet.call("speak")
    assert [params["data"] for _, params in loud.told] == ["debug", "info", "error"]
    assert [params for _, params in quiet.told] == [
        {"level": "error", "data": "error", "logger": "box"}
    ]
    assert [p["level"] for p in box.asked("logging/setLevel")] == ["debug"]


async def test_requests_wait_for_servers_that_still_start() -> None:
    """Many clients list tools once, right after the start, and never again."""
    from mcp_bridge.bridge import open_bridge
    from mcp_bridge.config.settings import Settings
    from mcp_bridge.mcp_server.door import mcp_door
    from mcp_bridge.mcp_server.streams import serve
    from mcp_bridge.mcp_server.visit import VISIT, Visit
    from mcp_bridge.types import ANYONE
    from tests.mcp_server.box import running

    async with running(Box(tools=[tool("t")])) as url:
        settings = Settings.model_validate({"mcp_servers": {"a": {"url": url}}})
        async with open_bridge(settings) as bridge, mcp_door(bridge) as door:
            answers: list[str] = []
            answered = anyio.Event()

            async def ask() -> Any:
                yield '{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
                await answered.wait()

            async def hear(line: str) -> None:
                answers.append(line)
                answered.set()

            VISIT.set(Visit(ANYONE))
            with anyio.fail_after(20):
                await serve(door.facade.server, ask(), hear)
    assert '"name":"t"' in answers[0]
