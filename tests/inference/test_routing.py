"""Which server is asked for a model, and what they offer together."""

import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import anyio
import pytest

from mcp_bridge.config.settings import InferenceServer
from mcp_bridge.errors import InferenceError, RequestError
from mcp_bridge.inference.client import Inference
from mcp_bridge.inference.models import entries_of
from mcp_bridge.inference.retries import LONGEST_BACKOFF, asked_wait, seconds_before
from mcp_bridge.inference.routing import close_names, is_listed, matches
from mcp_bridge.types import Json
from tests.fakes import (
    Reply,
    ScriptedInference,
    answer,
    chunk,
    closed_port,
    hang,
    page,
    refuse,
    sse,
    whole,
)
from tests.inference.asking import answer_to, at, error_of, inference, question

ONE, TWO = answer("from one"), answer("from two")
BUSY = whole({"error": {"message": "starting"}}, status=503)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def listing(*entries: Any) -> Reply:
    return whole({"object": "list", "data": list(entries)})


def ids(models: list[Json]) -> list[str]:
    return [model["id"] for model in models]


def somewhere(**settings: Any) -> InferenceServer:
    """A server that is never asked."""
    return InferenceServer.model_validate({"base_url": "http://gpu.test/v1", **settings})


async def text_of(asked: Inference, model: str) -> Any:
    return (await answer_to(asked, question(model=model))).message["content"]


# Which server


@pytest.mark.parametrize(
    ("model", "patterns", "is_match"),
    [
        ("gpt-4o", ["gpt-4o"], True),
        ("gpt-4o", ["gpt-*"], True),
        ("gpt-4o", ["*"], True),
        ("GPT-4o", ["gpt-*"], False),
        ("llama3", ["llama3:latest"], True),
        ("o1", ["gpt-*", "o?"], True),
        ("org/m[1]", ["org/m[1]"], True),
        ("claude", ["gpt-*"], False),
    ],
)
def test_models_are_named_or_matched(model: str, patterns: list[str], is_match: bool) -> None:
    assert matches(model, patterns) is is_match


@pytest.mark.parametrize(
    ("model", "listed", "is_there"),
    [
        ("llama3", "llama3:latest", True),
        ("llama3:70b", "llama3:latest", False),
        ("a/b:free", "a/b", True),
        ("gemini-2.0-flash", "models/gemini-2.0-flash", True),
        ("b", "a/b", False),
        ("", "a", False),
    ],
)
def test_servers_take_some_names_that_they_do_not_list(
    model: str, listed: str, is_there: bool
) -> None:
    assert is_listed(model, [listed]) is is_there


async def test_a_model_goes_to_the_first_server_whose_names_or_globs_match() -> None:
    async with (
        ScriptedInference(then=ONE) as one,
        ScriptedInference(then=TWO) as two,
        inference(at(one, models=["gpt-4o", "o?"]), at(two, models=["gpt-*"])) as asked,
    ):
        found = [await text_of(asked, model) for model in ("gpt-4o", "o3", "gpt-5")]
    assert found == ["from one", "from one", "from two"]
    assert two.requests[0].json["model"] == "gpt-5"


async def test_a_server_without_names_has_what_it_lists() -> None:
    async with (
        ScriptedInference(then=ONE, models=["shared", "a"]) as one,
        ScriptedInference(then=TWO, models=["shared", "b"]) as two,
        inference(at(one), at(two)) as asked,
    ):
        for model in ("a", "b", "shared"):
            await asked.check_model(model)
        found = [await text_of(asked, model) for model in ("a", "b", "shared")]
    assert found == ["from one", "from two", "from one"]


async def test_what_is_known_of_a_model_is_that_of_its_server() -> None:
    one = somewhere(models=["a*"], vision=["a-v*"], schema_profile="gemini")
    two = somewhere(models=["*"], text_tool_calls=["b-*"], schema_profile="llamacpp")
    async with inference(one, two) as asked:
        assert [asked.profile(model) for model in ("a-1", "b-1")] == ["gemini", "llamacpp"]
        assert [asked.sees_images(m) for m in ("a-vision", "a-1", "b-v")] == [True, False, False]
        assert [asked.parses_text_calls(m) for m in ("a-1", "b-1", "c")] == [False, True, False]


# Going on to another server


@pytest.mark.parametrize("stream", [True, False])
async def test_a_server_that_is_down_is_replaced_by_the_next_that_has_the_model(
    stream: bool,
) -> None:
    with closed_port() as port:
        gone = InferenceServer(base_url=f"http://127.0.0.1:{port}/v1", models=("m",))
        async with (
            ScriptedInference(then=ONE) as other,
            ScriptedInference(then=TWO) as two,
            inference(gone, at(other, models=["other"]), at(two, models=["m"])) as asked,
        ):
            found = await answer_to(asked, question(stream=stream, model="m"))
    assert found.message["content"] == "from two"
    assert not other.requests


@pytest.mark.parametrize("down", [BUSY, refuse(), page(status=502)])
async def test_a_server_is_tried_again_before_the_next_is_asked(down: Reply) -> None:
    async with (
        ScriptedInference(then=down) as one,
        ScriptedInference(then=TWO) as two,
        inference(at(one, models=["m"], max_retries=1), at(two, models=["m"])) as asked,
    ):
        assert await text_of(asked, "m") == "from two"
    assert (len(one.requests), len(two.requests)) == (2, 1)


async def test_a_server_that_was_down_is_asked_last_for_a_while() -> None:
    clock = Clock()
    async with (
        ScriptedInference(BUSY, then=ONE) as one,
        ScriptedInference(then=TWO) as two,
        inference(
            at(one, models=["m"], max_retries=0), at(two, models=["m"]), clock=clock
        ) as asked,
    ):
        found = [await text_of(asked, "m") for _ in range(2)]
        clock.now += 60
        found.append(await text_of(asked, "m"))
    assert found == ["from two", "from two", "from one"]


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
async def test_a_refusal_is_an_answer_and_nobody_else_is_asked(status: int) -> None:
    refusal = whole({"error": {"message": "no"}}, status=status)
    async with (
        ScriptedInference(then=refusal) as one,
        ScriptedInference(then=TWO) as two,
        inference(at(one, models=["m"]), at(two, models=["m"])) as asked,
    ):
        assert (await error_of(asked, question(model="m"))).status == status
    assert not two.requests


async def test_after_the_first_byte_there_is_no_way_back() -> None:
    async with (
        ScriptedInference(sse(chunk({"content": "half"}), end="cut")) as one,
        ScriptedInference(then=TWO) as two,
        inference(at(one, models=["m"]), at(two, models=["m"])) as asked,
    ):
        await error_of(asked, question(stream=True, model="m"))
    assert not two.requests


async def test_when_all_are_down_the_last_one_says_so() -> None:
    with closed_port() as first, closed_port() as second:
        servers = [
            InferenceServer(name=name, base_url=f"http://127.0.0.1:{port}/v1", models=("m",))
            for name, port in (("one", first), ("two", second))
        ]
        async with inference(*servers) as asked:
            error = await error_of(asked, question(model="m"))
    assert '"two" cannot be reached' in error.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9),
    ],
)
def test_a_server_may_say_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers, time.time()) == seconds


def test_a_server_may_say_when_to_come_back() -> None:
    noon = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
    headers = {"retry-after": format_datetime(noon, usegmt=True)}
    assert asked_wait(headers, noon.timestamp() - 20) == 20
    assert asked_wait(headers, noon.timestamp() + 20) == 0


def test_a_wait_that_a_server_asks_for_takes_the_place_of_ours() -> None:
    for headers, wait in (({"retry-after": "7"}, 7), ({}, 0)):
        error = InferenceError("busy", status=429, headers=headers)
        assert seconds_before(3, error, 0.0) == wait


@pytest.mark.parametrize(
    ("attempt", "least"), [(0, 0.5), (1, 1), (3, 4), (9, LONGEST_BACKOFF), (5000, LONGEST_BACKOFF)]
)
def test_each_wait_is_longer_up_to_a_limit(attempt: int, least: float) -> None:
    error = InferenceError("gone", status=502)
    assert least <= seconds_before(attempt, error, 0.5) <= least + 0.5


# Lists of models


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"data": [{"id": "a", "x": 1}]}, [{"id": "a", "x": 1}]),
        (
            {"models": [{"name": "a:latest", "model": "a:latest", "size": 1}]},
            [
                {
                    "name": "a:latest",
                    "model": "a:latest",
                    "size": 1,
                    "id": "a:latest",
                    "object": "model",
                }
            ],
        ),
        ({"models": [{"name": "x"}], "data": [{"id": "a"}]}, [{"id": "a"}]),
        ({"models": [{"id": "a"}], "data": []}, [{"id": "a"}]),
        ([{"id": "a"}, {"id": "b"}, {"id": "a", "again": True}], [{"id": "a"}, {"id": "b"}]),
        (["a"], [{"id": "a", "object": "model"}]),
        ({"data": ["a", None, 7, {}, {"id": ""}, {"id": 3}]}, [{"id": "a", "object": "model"}]),
        ({"data": []}, []),
    ],
)
def test_lists_of_models_come_in_many_shapes(body: Any, expected: list[Json]) -> None:
    assert entries_of(body) == expected


@pytest.mark.parametrize("body", [{}, {"data": None}, "models", None, {"data": {"id": "a"}}])
def test_what_holds_no_list_is_none(body: Any) -> None:
    with pytest.raises(ValueError, match="no list"):
        entries_of(body)


async def test_the_lists_are_merged_in_order_with_every_field() -> None:
    async with (
        ScriptedInference() as one,
        ScriptedInference() as two,
        inference(at(one), at(two)) as asked,
    ):
        one.models = listing({"id": "b", "meta": {"n_ctx": 4096}}, {"id": "a"})
        two.models = listing({"id": "a", "owned_by": "two"}, {"id": "c"})
        models = await asked.models()
    assert models == [{"id": "b", "meta": {"n_ctx": 4096}}, {"id": "a"}, {"id": "c"}]


async def test_the_settings_choose_from_a_list_and_add_to_it() -> None:
    async with (
        ScriptedInference(models=["gpt-4o", "gpt-5", "whisper"]) as server,
        inference(at(server, name="cloud", models=["gpt-*", "mine"])) as asked,
    ):
        models = await asked.models()
    assert ids(models) == ["gpt-4o", "gpt-5", "mine"]
    assert models[-1] == {"id": "mine", "object": "model", "created": 0, "owned_by": "cloud"}


async def test_azure_offers_the_deployments_that_the_settings_name() -> None:
    async with (
        ScriptedInference(models=["base-model"]) as server,
        inference(at(server, api_version="1", models=["mine"])) as asked,
    ):
        assert ids(await asked.models()) == ["mine"]
        async with inference(at(server, api_version="1")) as nameless:
            assert await nameless.models() == []


async def test_a_server_that_goes_down_still_contributes_its_last_list() -> None:
    clock = Clock()
    async with (
        ScriptedInference(models=["a"]) as one,
        ScriptedInference(models=["b"]) as two,
        inference(at(one), at(two), clock=clock) as asked,
    ):
        assert ids(await asked.models()) == ["a", "b"]
        one.models = refuse()
        two.models = listing({"id": "new"})
        clock.now += 60
        assert ids(await asked.models()) == ["a", "new"]


async def test_servers_that_cannot_be_read_leave_the_others_alone() -> None:
    async with (
        ScriptedInference() as broken,
        ScriptedInference(models=["b"]) as two,
        inference(at(broken), at(two)) as asked,
    ):
        broken.models = page("<html>it works</html>", status=200)
        assert ids(await asked.models()) == ["b"]


@pytest.mark.parametrize(
    "listed",
    [
        whole({"error": {"message": "no"}}, status=401),
        whole({"error": {"message": "no"}}),
        whole({"models": "many"}),
        page(status=502),
        refuse(),
    ],
)
async def test_when_no_list_can_be_read_that_is_an_error_and_no_empty_list(listed: Reply) -> None:
    async with ScriptedInference() as server, inference(at(server)) as asked:
        server.models = listed
        with pytest.raises(InferenceError):
            await asked.models()


async def test_a_list_that_hangs_is_waited_for_no_longer_than_the_bound() -> None:
    async with (
        ScriptedInference() as slow,
        ScriptedInference(models=["b"]) as two,
        inference(at(slow), at(two), list_seconds=0.1) as asked,
    ):
        slow.models = hang()
        with anyio.fail_after(5):
            assert ids(await asked.models()) == ["b"]
            assert ids(await asked.models()) == ["b"]
            await slow.others[0].gone.wait()
    assert len(slow.others) == 1, "what was slow to fail is not asked again at once"


async def test_many_who_want_the_list_fetch_it_once() -> None:
    async with ScriptedInference() as server, inference(at(server)) as asked:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(asked.models)
        await asked.models()
    assert len(server.others) == 1


async def test_the_last_list_is_there_while_a_new_one_is_fetched() -> None:
    clock, gate, asked_again = Clock(), anyio.Event(), anyio.Event()

    async def slowly(_: Any) -> Reply:
        asked_again.set()
        await gate.wait()
        return listing({"id": "new"})

    async with (
        ScriptedInference(models=["old"]) as server,
        inference(at(server), clock=clock, list_seconds=60) as asked,
    ):
        await asked.models()
        server.models = slowly
        clock.now += 60
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(asked.models)
                await asked_again.wait()
                assert ids(await asked.models()) == ["old"]
                gate.set()
        assert ids(await asked.models()) == ["new"]


# Unknown models


async def test_an_unknown_model_is_a_404_that_names_close_ones() -> None:
    async with (
        ScriptedInference(models=["llama3:8b", "qwen3:4b"]) as server,
        inference(at(server)) as asked,
    ):
        with pytest.raises(RequestError, match="did you mean 'llama3:8b'") as caught:
            await asked.check_model("lama3:8b")
    error = caught.value
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("wanted", "close"),
    [("GPT-4O", ["gpt-4o"]), ("qwen", ["org/Qwen3-4B"]), ("zzz", []), ("", [])],
)
def test_close_names_are_found_by_likeness_or_as_a_part(wanted: str, close: list[str]) -> None:
    assert close_names(wanted, ["gpt-4o", "org/Qwen3-4B"]) == close


@pytest.mark.parametrize("listed", [whole({}, status=404), refuse(), page(status=200)])
async def test_a_list_that_cannot_be_read_forbids_nothing(listed: Reply) -> None:
    async with ScriptedInference(ONE) as server, inference(at(server)) as asked:
        server.models = listed
        await asked.check_model("anything")
        assert await text_of(asked, "anything") == "from one"


@pytest.mark.parametrize("settings", [{"models": ["*"]}, {"api_version": "1"}, {"models": ["m"]}])
async def test_what_is_settled_by_the_settings_needs_no_list(settings: dict[str, Any]) -> None:
    async with ScriptedInference() as server, inference(at(server, **settings)) as asked:
        await asked.check_model("m")
        if settings.get("models"):
            assert not server.others


async def test_names_in_the_settings_exclude_others() -> None:
    async with inference(somewhere(models=["gpt-*"])) as asked:
        with pytest.raises(RequestError):
            await asked.check_model("llama3")


async def test_a_new_model_is_found_once_the_list_has_some_age() -> None:
    clock = Clock()
    async with (
        ScriptedInference(models=["old"]) as server,
        inference(at(server), clock=clock) as asked,
    ):
        await asked.check_model("old")
        server.models = listing({"id": "old"}, {"id": "new"})
        with pytest.raises(RequestError):
            await asked.check_model("new")
        assert len(server.others) == 1, "a name that nobody has costs no request each time"
        clock.now += 5
        await asked.check_model("new")


async def test_a_known_model_never_waits_for_a_list() -> None:
    clock = Clock()
    async with ScriptedInference() as server, inference(at(server), clock=clock) as asked:
        await asked.check_model("model-a")
        clock.now += 3600
        server.models = hang()
        with anyio.fail_after(5):
            await asked.check_model("model-a")
    assert len(server.others) == 1


# The state of the servers


async def test_a_check_says_of_each_server_whether_it_answers() -> None:
    with closed_port() as port:
        gone = f"http://user:hunter22@127.0.0.1:{port}/v1"
        async with (
            ScriptedInference(models=["a", "b"]) as good,
            ScriptedInference() as listless,
            inference(
                at(good, name="good"),
                at(listless, name="listless"),
                InferenceServer(name="gone", base_url=gone),
            ) as asked,
        ):
            listless.models = whole({"detail": "Not Found"}, status=404)
            found = await asked.check()
    assert found[0] == {
        "name": "good",
        "base_url": good.base_url,
        "ok": True,
        "error": None,
        "models": 2,
    }
    assert (found[1]["ok"], found[1]["error"], found[1]["models"]) == (True, None, None)
    assert found[2]["ok"] is False
    assert "connection refused" in found[2]["error"]
    assert "hunter22" not in str(found)


async def test_a_check_knows_when_a_server_is_back() -> None:
    clock = Clock()
    async with ScriptedInference() as server, inference(at(server), clock=clock) as asked:
        server.models = BUSY
        assert [state["ok"] for state in await asked.check()] == [False]
        server.models = listing({"id": "a"})
        clock.now += 60
        assert [state["ok"] for state in await asked.check()] == [True]
