"""Clients are told what has changed for them, once, and of nothing else (S7)."""

from typing import Any

import pytest

from mcp_bridge.config.settings import Settings
from mcp_bridge.types import Json
from tests.mcp_server.box import Box, boxes, text, tool
from tests.mcp_server.wire import NEW, OLD, Wire, wire

TOOLS_CHANGED = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
eras = pytest.mark.parametrize(
    ("front", "behind"), [(OLD, "legacy"), (OLD, NEW), (NEW, "legacy"), (NEW, NEW)]
)


async def listen(client: Wire, **wanted: Any) -> int:
    """Hear of these changes; of all lists by default. The old era hears of lists unasked."""
    if not client.modern:
        return 0
    lists = {f"{kind}ListChanged": True for kind in ("tools", "prompts", "resources")}
    number = await client.send("subscriptions/listen", {"notifications": wanted or lists})
    await client.until_told(ACKNOWLEDGED)
    return number


@eras
async def test_a_change_of_tools_is_told_once_and_the_new_list_is_there(
    front: str, behind: str
) -> None:
    box = Box(tools=[tool("one")], answers={"one": text("1")})
    async with boxes(behind, a=box) as house, wire(house, front) as client:
        await listen(client)
        box.tools = [tool("one"), tool("two")]
        await box.changed("tools")
        await client.until_told(TOOLS_CHANGED)
        assert [t["name"] for t in (await client.ask("tools/list"))["tools"]] == ["one", "two"]
        await client.call("one")
        assert client.told == []


@eras
async def test_an_announcement_without_a_change_is_not_told(front: str, behind: str) -> None:
    box = Box(tools=[tool("one")], prompts=[{"name": "p"}], answers={"one": text("1")})
    async with boxes(behind, a=box) as house, wire(house, front) as client:
        await listen(client)
        await box.changed("tools")
        box.prompts = [{"name": "q"}]
        await box.changed("prompts")
        await client.until_told("notifications/prompts/list_changed")
        assert client.told == []


async def test_only_those_who_see_a_server_hear_of_its_changes() -> None:
    one, two = Box(tools=[tool("one")]), Box(tools=[tool("two")])
    keys = [{"key": "k1", "name": "ada", "tools": ["one:*"]}, {"key": "k2", "name": "bob"}]
    settings = {"security": {"auth": {"enabled": True, "api_keys": keys}}}
    async with (
        boxes(settings=settings, one=one, two=two) as house,
        wire(house, key="k1") as ada,
        wire(house, key="k2") as bob,
    ):
        two.tools = [tool("two"), tool("three")]
        await two.changed("tools")
        await bob.until_told(TOOLS_CHANGED)
        assert [t["name"] for t in (await ada.ask("tools/list"))["tools"]] == ["one"]
        assert ada.told == []


async def test_a_new_configuration_is_told_like_any_change() -> None:
    one, two = Box(tools=[tool("one")]), Box(tools=[tool("two")])
    async with boxes(one=one, two=two) as house, wire(house) as client:
        servers = {"two": house.bridge.settings.mcp_servers["two"]}
        house.bridge.apply(Settings(mcp_servers=servers))
        await client.until_told(TOOLS_CHANGED)
        assert [t["name"] for t in (await client.ask("tools/list"))["tools"]] == ["two"]


async def test_a_subscription_of_the_new_era_gets_only_what_it_asked_for() -> None:
    box = Box(tools=[tool("one")], prompts=[{"name": "p"}])
    async with boxes(a=box) as house, wire(house, NEW) as client, wire(house) as other:
        wanted = {"notifications": {"promptsListChanged": True}}
        number = await client.send("subscriptions/listen", wanted)
        acknowledged = await client.until_told(ACKNOWLEDGED)
        assert acknowledged["notifications"] == {"promptsListChanged": True}
        box.tools = []
        await box.changed("tools")
        await other.until_told(TOOLS_CHANGED)
        box.prompts = [{"name": "q"}]
        await box.changed("prompts")
        told = await client.until_told("notifications/prompts/list_changed")
        assert told["_meta"]["io.modelcontextprotocol/subscriptionId"] == number
        assert client.told == []


# Resources.


async def watch(client: Wire, uri: str) -> int:
    if client.modern:
        return await listen(client, resourceSubscriptions=[uri])
    await client.ask("resources/subscribe", {"uri": uri})
    return 0


def watched(box: Box) -> list[str]:
    """The URIs that the bridge watches at this server, in the way of either era."""
    listening = [p["notifications"] for p in box.asked("subscriptions/listen")]
    asked = [params["uri"] for params in box.asked("resources/subscribe")]
    return asked + [uri for wanted in listening for uri in wanted.get("resourceSubscriptions", ())]


@eras
async def test_an_update_reaches_those_who_watch_the_resource(front: str, behind: str) -> None:
    uri = "notes://today"
    box = Box(resources=[{"uri": uri, "name": "n"}], answers={uri: {"contents": []}})
    async with (
        boxes(behind, a=box) as house,
        wire(house, front) as client,
        wire(house, front) as other,
    ):
        await watch(client, uri)
        await box.until(lambda: uri in watched(box))
        await box.updated(uri)
        assert (await client.until_told(UPDATED))["uri"] == uri
        await other.ask("tools/list")
        assert other.told == []


async def test_a_resource_under_another_name_is_watched_and_told_under_that_name() -> None:
    uri = "notes://today"
    one = Box(resources=[{"uri": uri, "name": "n"}])
    two = Box(resources=[{"uri": uri, "name": "n"}])
    async with boxes("legacy", one=one, two=two) as house, wire(house) as client:
        await watch(client, f"mcp-bridge://two/{uri}")
        assert watched(two) == [uri]
        await one.updated(uri)
        await two.updated(uri)
        assert (await client.until_told(UPDATED))["uri"] == f"mcp-bridge://two/{uri}"
        await client.ask("ping")
        assert client.told == []


async def test_a_server_is_watched_once_however_many_watch_here() -> None:
    uri = "notes://today"
    box = Box(resources=[{"uri": uri, "name": "n"}])
    async with boxes("legacy", a=box) as house, wire(house) as one, wire(house) as two:
        await watch(one, uri)
        await watch(two, uri)
        await one.ask("resources/unsubscribe", {"uri": uri})
        await box.updated(uri)
        await two.until_told(UPDATED)
        await two.ask("resources/unsubscribe", {"uri": uri})
        assert watched(box) == [uri]
        assert len(box.asked("resources/unsubscribe")) == 1
        assert one.told == []


async def test_what_is_below_a_watched_resource_belongs_to_it() -> None:
    box = Box(resources=[{"uri": "file:///a", "name": "a"}])
    async with boxes("legacy", a=box) as house, wire(house) as client:
        await watch(client, "file:///a")
        await box.updated("file:///ab")
        await box.updated("file:///a/b.txt")
        assert (await client.until_told(UPDATED))["uri"] == "file:///a/b.txt"
        assert client.told == []


async def test_what_is_watched_and_the_log_level_outlive_a_reconnect() -> None:
    uri = "notes://today"
    box = Box(resources=[{"uri": uri, "name": "n"}], answers={"logging/setLevel": {}})
    async with boxes("legacy", a=box) as house, wire(house) as client:
        await watch(client, uri)
        await client.ask("logging/setLevel", {"level": "debug"})
        box.restart()
        await box.until(lambda: len(box.asked("logging/setLevel")) == 2)
        assert watched(box) == [uri, uri]
        await box.updated(uri)
        assert (await client.until_told(UPDATED))["uri"] == uri


async def test_a_server_hears_that_the_roots_of_a_client_have_changed() -> None:
    box = Box(tools=[tool("t")])
    async with boxes("legacy", a=box) as house, wire(house, capabilities={"roots": {}}) as client:
        await client.say({"method": "notifications/roots/list_changed"})
        await box.until(lambda: bool(box.asked("notifications/roots/list_changed")))


async def test_the_end_of_a_login_at_a_url_is_told_to_the_one_who_was_sent_there() -> None:
    async def send_away(context: Any, params: Json) -> Json:
        question = {
            "mode": "url",
            "message": "m",
            "url": "https://x.example",
            "elicitationId": "e1",
        }
        channel = context.session._request_outbound
        return text((await channel.send_raw_request("elicitation/create", question))["action"])

    box = Box(tools=[tool("go")], answers={"go": send_away})
    can: Json = {"elicitation": {"url": {}}}
    async with (
        boxes("legacy", a=box) as house,
        wire(house, capabilities=can) as client,
        wire(house, capabilities=can) as other,
    ):
        await client.send("tools/call", {"name": "go", "arguments": {}})
        while (asked := await client.hear()).get("method") != "elicitation/create":
            pass
        await client.say({"id": asked["id"], "result": {"action": "accept"}})
        await client.hear()
        await box.announce("notifications/elicitation/complete", {"elicitationId": "e1"})
        told = await client.until_told("notifications/elicitation/complete")
        assert told["elicitationId"] == "e1"
        await other.ask("ping")
        assert other.told == []


async def test_the_status_of_a_task_is_told_by_the_id_that_its_client_knows() -> None:
    began = {"task": {"taskId": "t1", "status": "working"}}
    one = Box(tools=[tool("first")], answers={"first": began})
    two = Box(tools=[tool("second")], answers={"second": began})
    async with boxes("legacy", one=one, two=two) as house, wire(house) as client:
        ids = {}
        for name in ("first", "second"):
            params: Json = {"name": name, "arguments": {}, "task": {}}
            ids[name] = (await client.ask("tools/call", params))["task"]["taskId"]
        assert ids["first"] == "t1" != ids["second"]
        for name, box in (("second", two), ("first", one)):
            status = {"taskId": "t1", "status": "completed"}
            await box.announce("notifications/tasks/status", status)
            told = await client.until_told("notifications/tasks/status")
            assert told["taskId"] == ids[name]


async def test_the_status_of_a_task_is_told_to_the_one_who_began_it() -> None:
    began = {"task": {"taskId": "t1", "status": "working"}}
    box = Box(tools=[tool("slow")], answers={"slow": began})
    async with boxes("legacy", a=box) as house, wire(house) as ada, wire(house) as bob:
        await ada.ask("tools/call", {"name": "slow", "arguments": {}, "task": {}})
        for status in ("working", "completed"):
            await box.announce("notifications/tasks/status", {"taskId": "t1", "status": status})
            told = await ada.until_told("notifications/tasks/status")
            assert (told["taskId"], told["status"]) == ("t1", status)
        await box.announce("notifications/tasks/status", {"taskId": "t2", "status": "working"})
        for client in (ada, bob):
            await client.ask("ping")
            assert client.told == []
