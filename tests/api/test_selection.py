"""Which tools a request gets (DESIGN 3.16, 3.17; U2, U4, L25)."""

from typing import Any

import pytest

from mcp_bridge.api.headers import Headers
from mcp_bridge.api.selection import Choice, choose, is_side_request
from mcp_bridge.config.settings import Settings
from mcp_bridge.errors import RequestError
from mcp_bridge.types import ANYONE, Caller, Json

TOOLS = ["files:read", "files:write", "web:search", "web:get", "odd*:x", "git.log:log"]
CONFIG: Json = {
    "mcp_servers": {name: {"command": name} for name in ("files", "web", "odd*", "git.log")},
    "toolsets": {
        "reading": {"include": ["files:read", "web:*"]},
        "web": {"include": ["web:*"], "prefix": "always"},
        "writing": {"include": ["*:write"], "prefix": "never"},
    },
}
SETTINGS = Settings.model_validate(CONFIG)
HI = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def sent(headers: Json) -> Headers:
    return Headers((name.lower().encode(), value.encode()) for name, value in headers.items())


def chosen(
    body: Json | None = None,
    *,
    caller: Caller = ANYONE,
    headers: Json | None = None,
    toolset: str | None = None,
    settings: Settings = SETTINGS,
) -> Choice:
    return choose({**HI, **(body or {})}, caller, sent(headers or {}), toolset, settings)


def tools_of(choice: Choice) -> list[str]:
    return [name for name in TOOLS if all(s.allows(*name.split(":")) for s in choice.selections)]


def refused(*args: Any, **kwargs: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        chosen(*args, **kwargs)
    return caught.value


def mcp(label: str, **fields: Any) -> Json:
    return {"type": "mcp", "server_label": label, **fields}


READING = ["files:read", "web:search", "web:get"]


# Where tools can be chosen


def test_a_request_that_says_nothing_gets_every_tool() -> None:
    choice = chosen()
    assert tools_of(choice) == TOOLS
    assert not choice.asked
    assert choice.body == HI


@pytest.mark.parametrize(
    "request_",
    [
        {"toolset": "reading"},
        {"body": {"model": "m@reading"}},
        {"headers": {"X-MCP-Toolset": "reading"}},
        {"body": {"mcp": {"toolset": "reading"}}},
        {"body": {"mcp": {"toolsets": ["reading"]}}},
        {"body": {"mcp": {"tools": ["files:read", "web:*"]}}},
        {"caller": Caller(toolset="reading")},
        {"caller": Caller(tools=("files:read", "web:*"))},
        {"body": {"tools": [mcp("files", allowed_tools=["read"]), mcp("web")]}},
    ],
)
def test_the_same_tools_can_be_chosen_everywhere(request_: Any) -> None:
    choice = chosen(**request_)
    assert tools_of(choice) == READING
    assert choice.asked == ("caller" not in request_)
    assert choice.body["model"] == "m"
    assert "mcp" not in choice.body
    assert choice.body.get("tools", []) == []


def test_everything_that_is_said_must_agree() -> None:
    choice = chosen(
        {"model": "m@reading", "mcp": {"servers": ["web", "files"]}},
        caller=Caller(tools=("!web:get",)),
        headers={"x-mcp-toolset": "web, files:*"},
    )
    assert tools_of(choice) == ["files:read", "web:search"]
    assert tools_of(chosen({"model": "m@web"}, toolset="writing")) == []


@pytest.mark.parametrize(
    "request_",
    [
        {"toolset": "none"},
        {"body": {"model": "m@none"}},
        {"headers": {"x-mcp-toolset": "none"}},
        {"body": {"mcp": False}},
        {"body": {"mcp": {"toolset": "none"}}},
        {"body": {"mcp": {"toolsets": []}}},
        {"body": {"mcp": {"tools": []}}},
        {"body": {"mcp": {"tools": [""]}}},
        {"body": {"mcp": {"servers": []}}},
        {"body": {"tools": [mcp("files", allowed_tools=[])]}},
        {"body": {"tools": [mcp("files", allowed_tools={"tool_names": []})]}},
        {"caller": Caller(tools=())},
    ],
)
def test_no_tools_can_be_chosen_everywhere_too_and_empty_never_means_all(request_: Any) -> None:
    assert tools_of(chosen(**request_)) == []


@pytest.mark.parametrize("value", ["", "   ", ",", " , "])
def test_an_empty_header_says_nothing(value: str) -> None:
    choice = chosen(headers={"x-mcp-toolset": value, "x-mcp-progress": value.replace(",", "")})
    assert tools_of(choice) == TOOLS
    assert not choice.asked


def test_a_header_that_is_sent_twice_counts_as_one_list() -> None:
    raw = [(b"x-mcp-toolset", b"files:read"), (b"x-mcp-toolset", b"web")]
    choice = choose(dict(HI), ANYONE, Headers(raw), None, SETTINGS)
    assert tools_of(choice) == READING


def test_an_empty_extension_says_nothing_and_is_not_sent_on() -> None:
    empty: list[Json | None] = [{}, None]
    for value in empty:
        choice = chosen({"mcp": value})
        assert tools_of(choice) == TOOLS
        assert not choice.asked
        assert "mcp" not in choice.body


def test_the_request_itself_stays_as_it_was() -> None:
    body = {**HI, "model": "m@web", "mcp": {"tools": ["a"]}, "tools": [mcp("web")]}
    before = {**body, "tools": list(body["tools"])}
    choose(body, ANYONE, Headers(()), None, SETTINGS)
    assert body == before


# The model's name


@pytest.mark.parametrize(
    ("model", "sent", "tools"),
    [
        ("m@web", "m", ["web:search", "web:get"]),
        ("org/m@main@web", "org/m@main", ["web:search", "web:get"]),
        ("m@main", "m@main", TOOLS),
        ("m@", "m@", TOOLS),
        ("@web", "@web", TOOLS),
        ("web", "web", TOOLS),
    ],
)
def test_only_a_toolset_after_the_last_at_sign_is_taken_off_the_model(
    model: str, sent: str, tools: list[str]
) -> None:
    choice = chosen({"model": model})
    assert choice.body["model"] == sent
    assert tools_of(choice) == tools


def test_a_toolset_called_none_is_a_toolset() -> None:
    config = {**CONFIG, "toolsets": {"none": {"include": ["web:get"]}}}
    settings = Settings.model_validate(config)
    for request in (
        {"toolset": "none"},
        {"body": {"model": "m@none"}},
        {"headers": {"x-mcp-toolset": "none"}},
        {"body": {"mcp": {"toolset": "none"}}},
    ):
        assert tools_of(chosen(**request, settings=settings)) == ["web:get"]


# Names that are not there


@pytest.mark.parametrize(
    "request_",
    [
        {"toolset": "nope"},
        {"toolset": "files:*"},
        {"headers": {"x-mcp-toolset": "web, nope"}},
        {"body": {"mcp": {"toolset": "nope"}}},
        {"body": {"mcp": {"toolsets": ["web", ""]}}},
    ],
)
def test_an_unknown_toolset_is_404(request_: Any) -> None:
    error = refused(**request_)
    assert error.status == 404
    assert error.code == "toolset_not_found"


@pytest.mark.parametrize(
    "ask",
    [
        lambda name: {"toolset": name},
        lambda name: {"headers": {"x-mcp-toolset": name}},
        lambda name: {"body": {"mcp": {"toolset": name}}},
    ],
)
def test_for_a_key_that_is_bound_other_toolsets_do_not_exist(ask: Any) -> None:
    bound = Caller(toolset="web")
    there, not_there = refused(caller=bound, **ask("reading")), refused(caller=bound, **ask("nope"))
    assert there.body() == {"error": {**not_there.body()["error"], "message": there.message}}
    assert there.message.replace("reading", "nope") == not_there.message
    assert tools_of(chosen(caller=bound, **ask("web"))) == ["web:search", "web:get"]


def test_for_a_key_that_is_bound_an_alias_of_another_toolset_is_just_a_model_name() -> None:
    choice = chosen({"model": "m@reading"}, caller=Caller(toolset="web"))
    assert choice.body["model"] == "m@reading"
    assert tools_of(chosen({"model": "m@none"}, caller=Caller(toolset="web"))) == []


def test_for_a_key_a_server_that_it_may_not_use_does_not_exist() -> None:
    caller = Caller(tools=("web:*",))
    hidden = refused({"tools": [mcp("files")]}, caller=caller)
    unknown = refused({"tools": [mcp("nope")]}, caller=caller)
    assert hidden.message.replace("files", "nope") == unknown.message
    assert (hidden.status, hidden.code, hidden.param) == (
        400,
        "mcp_server_not_found",
        "tools[0].server_label",
    )


# The body's own object


@pytest.mark.parametrize(
    ("value", "param"),
    [
        (True, "mcp"),
        ("web", "mcp"),
        ([], "mcp"),
        ({"tool": ["a"]}, "mcp.tool"),
        ({"tools": {"a": 1}}, "mcp.tools"),
        ({"tools": [1]}, "mcp.tools"),
        ({"toolset": 1}, "mcp.toolset"),
        ({"servers": [None]}, "mcp.servers"),
        ({"progress": "loud"}, "mcp.progress"),
        ({"progress": ["off"]}, "mcp.progress"),
        ({"tools": ["a"] * 1000}, "mcp.tools"),
        ({"tools": ["a" * 1000]}, "mcp.tools"),
    ],
)
def test_what_the_extension_cannot_mean_is_400(value: Any, param: str) -> None:
    error = refused({"mcp": value})
    assert (error.status, error.param) == (400, param)


def test_one_string_is_as_good_as_a_list() -> None:
    assert tools_of(chosen({"mcp": {"tools": " web:* "}})) == ["web:search", "web:get"]
    assert tools_of(chosen({"mcp": {"servers": "web"}})) == ["web:search", "web:get"]


def test_too_many_patterns_in_a_header_are_400() -> None:
    assert refused(headers={"x-mcp-toolset": ",".join(["a:b"] * 300)}).param == "X-MCP-Toolset"


# Progress


def test_progress_is_chosen_by_the_settings_the_body_and_last_the_header() -> None:
    settings = Settings.model_validate({**CONFIG, "tools": {"progress": "reasoning"}})
    body = {"mcp": {"progress": "openwebui"}}
    assert chosen().progress == "off"
    assert chosen(settings=settings).progress == "reasoning"
    assert chosen(body, settings=settings).progress == "openwebui"
    assert chosen(body, headers={"x-mcp-progress": "off"}).progress == "off"
    assert not chosen(body).asked
    assert refused(headers={"x-mcp-progress": "loud"}).param == "X-MCP-Progress"


# Prefixes


@pytest.mark.parametrize(
    ("request_", "prefix"),
    [
        ({}, None),
        ({"toolset": "reading"}, None),
        ({"toolset": "web"}, "always"),
        ({"headers": {"x-mcp-toolset": "web"}}, "always"),
        ({"headers": {"x-mcp-toolset": "web, writing"}}, None),
        ({"body": {"mcp": {"toolset": "writing"}}}, "never"),
        ({"caller": Caller(toolset="web")}, "always"),
        ({"caller": Caller(toolset="web"), "body": {"mcp": {"tools": ["web:get"]}}}, "always"),
        ({"toolset": "web", "body": {"mcp": {"toolset": "writing"}}}, "never"),
    ],
)
def test_a_toolset_brings_its_prefix_policy_and_the_last_one_counts(
    request_: Any, prefix: str | None
) -> None:
    assert chosen(**request_).prefix == prefix


# OpenAI's MCP tools


def test_mcp_tools_choose_servers_and_are_not_sent_on() -> None:
    function = {"type": "function", "function": {"name": "f"}}
    choice = chosen({"tools": [mcp("web"), function, mcp("files", allowed_tools=["write"])]})
    assert tools_of(choice) == ["files:write", "web:search", "web:get"]
    assert choice.body["tools"] == [function]


def test_labels_and_names_are_meant_literally() -> None:
    assert tools_of(chosen({"tools": [mcp("odd*")]})) == ["odd*:x"]
    assert tools_of(chosen({"tools": [mcp("files", allowed_tools=["*"])]})) == []


def test_allowed_tools_may_be_an_object() -> None:
    choice = chosen({"tools": [mcp("web", allowed_tools={"tool_names": ["get"]})]})
    assert tools_of(choice) == ["web:get"]


def test_tools_that_are_no_mcp_tools_stay_untouched() -> None:
    tools = [{"type": "custom", "custom": {"name": "c"}}, {"function": {"name": "f"}}, "x"]
    choice = chosen({"tools": tools})
    assert choice.body["tools"] is tools
    assert not choice.asked


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        (mcp("nope"), "tools[0].server_label"),
        ({"type": "mcp"}, "tools[0].server_label"),
        (mcp(["web"]), "tools[0].server_label"),  # type: ignore[arg-type]  # what a client may send
        (mcp("web", allowed_tools=5), "tools[0].allowed_tools"),
        (mcp("web", allowed_tools=["a", 1]), "tools[0].allowed_tools"),
        (mcp("web", allowed_tools={"read_only": True}), "tools[0].allowed_tools"),
        (mcp("web", require_approval="always"), "tools[0].require_approval"),
        (mcp("web", require_approval={"always": {}}), "tools[0].require_approval"),
        (mcp("web", require_approval="perhaps"), "tools[0].require_approval"),
        (mcp("x", server_url="http://x.example/mcp"), "tools[0].server_url"),
    ],
)
def test_what_an_mcp_tool_cannot_mean_is_400(tool: Json, param: str) -> None:
    error = refused({"tools": [tool]})
    assert (error.status, error.param) == (400, param)


def test_approval_that_needs_nobody_is_fine() -> None:
    for approval in (None, "never", {"never": {"tool_names": ["get"]}}):
        assert chosen({"tools": [mcp("web", require_approval=approval)]}).asked


def test_a_server_cannot_be_forced_by_tool_choice() -> None:
    error = refused({"tools": [mcp("web")], "tool_choice": {"type": "mcp", "server_label": "web"}})
    assert error.param == "tool_choice"


VISITING = Settings.model_validate({**CONFIG, "security": {"allow_server_url": True}})
GUEST = mcp("guest", server_url="http://guest.example/mcp")


def test_a_server_by_url_is_refused_unless_the_operator_allows_it() -> None:
    assert refused({"tools": [GUEST]}).code == "server_url_not_allowed"
    choice = chosen({"tools": [GUEST]}, settings=VISITING)
    assert choice.strangers == (GUEST,)
    assert tools_of(choice) == []
    both = chosen({"tools": [GUEST, mcp("web")]}, settings=VISITING)
    assert both.strangers == (GUEST,)
    assert tools_of(both) == ["web:search", "web:get"]


@pytest.mark.parametrize("caller", [Caller(toolset="web"), Caller(tools=("web:*",))])
def test_a_key_that_is_limited_to_some_tools_may_bring_no_others(caller: Caller) -> None:
    error = refused({"tools": [GUEST]}, caller=caller, settings=VISITING)
    assert error.code == "server_url_not_allowed"


@pytest.mark.parametrize(
    "fields", [{"server_url": 5}, {"server_label": None}, {"allowed_tools": "x" * 1000}]
)
def test_a_server_by_url_has_the_right_fields(fields: Json) -> None:
    assert refused({"tools": [{**GUEST, **fields}]}, settings=VISITING).status == 400


# Side requests


TASK = [{"role": "user", "content": "### Task:\nGenerate a concise title"}]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({}, {"x-openwebui-task": "title_generation"}),
        ({"stream": True}, {"x-openwebui-task": "tags_generation"}),
        ({"metadata": {"task": "follow_up_generation"}}, {}),
        ({"messages": TASK}, {}),
        ({"messages": TASK, "stream": False, "tools": []}, {}),
    ],
)
def test_what_a_user_interface_asks_by_itself_is_recognised(body: Json, headers: Json) -> None:
    assert is_side_request({**HI, **body}, headers)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({}, {}),
        ({}, {"x-openwebui-task": ""}),
        ({}, {"x-openwebui-task": "{{TASK}}"}),
        ({"metadata": {"task": "weather"}}, {}),
        ({"metadata": {"task": ["title_generation"]}}, {}),
        ({"metadata": "title_generation"}, {}),
        ({"messages": TASK, "stream": True}, {}),
        ({"messages": TASK, "tools": [{"function": {"name": "f"}}]}, {}),
        ({"messages": [{"role": "system", "content": "x"}, *TASK]}, {}),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}, {}),
        ({"messages": [{"role": "user", "content": "My task: ### Task:"}]}, {}),
    ],
)
def test_what_a_person_asks_is_no_side_request(body: Json, headers: Json) -> None:
    assert not is_side_request({**HI, **body}, headers)
