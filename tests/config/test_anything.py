"""Whatever is written, loading ends with settings or with an explanation."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_bridge.config.load import Loaded, load
from mcp_bridge.config.names import ALIASES
from mcp_bridge.config.redact import redacted
from mcp_bridge.config.shape import ROOT, Kind, Shape
from mcp_bridge.errors import ConfigError

NAMES = ("a", "my server", "", "enabled", "$schema", "mcp", "servers", "0")
TEXTS = (
    "",
    "x",
    "http://h/v1",
    "${A}",
    "${B}",
    "${",
    "$${x}",
    "http://[",
    "true",
    "1",
    "*",
    "\ud800",
)

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(TEXTS),
    st.none(),
    st.booleans(),
    st.integers(-2, 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner),
    max_leaves=6,
)


def maybe_fitting(shape: Shape | None) -> st.SearchStrategy[Any]:
    return ANYTHING if shape is None else st.deferred(lambda: fitting(shape)) | ANYTHING


def fitting(shape: Shape) -> st.SearchStrategy[Any]:
    """Values that have the right form, mostly."""
    if shape.kind is Kind.SECTION and shape.section:
        names = [*shape.fields(), *ALIASES.get(shape.section, {}), "enabled", "nmae"]
        inner = {name: shape.at(ALIASES.get(shape.section, {}).get(name, name)) for name in names}
        return st.fixed_dictionaries(
            {}, optional={name: maybe_fitting(at) for name, at in inner.items()}
        )
    if shape.kind is Kind.MAPPING and shape.item:
        return st.dictionaries(st.sampled_from(NAMES), fitting(shape.item) | SCALARS, max_size=3)
    if shape.kind is Kind.LIST and shape.item:
        return st.lists(fitting(shape.item) | SCALARS, max_size=3)
    return st.sampled_from([*shape.choices, *TEXTS]) | SCALARS


def loaded(environ: dict[str, str]) -> Loaded | ConfigError:
    try:
        return load("/dev/null/none" if False else None, environ)
    except ConfigError as exc:
        return exc


@given(fitting(ROOT) | ANYTHING, fitting(ROOT))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_json_loads_or_is_explained(data: Any, overrides: dict[str, Any]) -> None:
    environ = {"MCP_BRIDGE__CONFIG__JSON": json.dumps(data), "A": "1"}
    try:
        it = load(None, environ, overrides)
    except ConfigError as exc:
        assert exc.mistakes
        assert all(": " in line for line in exc.mistakes)
    else:
        json.dumps(redacted(it.settings))
        assert load(None, environ, overrides).settings == it.settings


STEPS = ["NETWORK", "PORT", "MCP_SERVERS", "a", "ENV", "X", "INFERENCE_SERVER", "API_KEYS", "", "0"]
STEPS += ["SECURITY", "AUTH", "TOOLS", "CONFIG", "ENABLED", "ARGS", "TIMEOUT", "CORS"]


@given(
    st.dictionaries(
        st.lists(st.sampled_from(STEPS), min_size=1, max_size=5).map("__".join),
        st.sampled_from([*TEXTS[:-1], "{}", "[]", "[{}]", "null", '{"a": {"command": "x"}}']),
        max_size=5,
    ),
    fitting(ROOT),
)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_variables_load_or_are_explained(
    variables: dict[str, str], below: dict[str, Any]
) -> None:
    environ = {f"MCP_BRIDGE__{name}": value for name, value in variables.items()}
    try:
        load(None, {**environ, "MCP_BRIDGE__CONFIG__JSON": json.dumps(below)})
    except ConfigError as exc:
        assert exc.mistakes
