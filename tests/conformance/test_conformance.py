"""The official conformance suite, against the bridge and through it.

The numbers of the server's side are those of docs/mcp.md.
"""

import os
import re
import sys
from pathlib import Path

import anyio
import pytest

from tests.conformance import driver
from tests.conformance.everything import everything_app
from tests.mcp_server.running import PATIENCE, house, serving
from tests.npm import ROOT, script

RELAY = Path(__file__).parent / "relay.py"
SCORED = re.compile(r"^([✓✗]) (\S+): (\d+) passed, (\d+) failed", re.MULTILINE)
UNSCORED = re.compile(r"^  [✓✗] (\S+) \(", re.MULTILINE)
pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")


async def conformance(*args: str) -> str:
    """What the suite prints."""
    command = script(
        ROOT / "tests/node/node_modules/@modelcontextprotocol/conformance/dist/index.js"
    )
    with anyio.fail_after(PATIENCE * 6):
        done = await anyio.run_process([*command, *args], check=False, env=dict(os.environ))
    return done.stdout.decode() + done.stderr.decode()


def score(printed: str) -> tuple[int, set[str]]:
    """How many scored scenarios have passed, and which have not."""
    unscored = set(UNSCORED.findall(printed))
    scored = {n: mark == "✓" for mark, n, _, _ in SCORED.findall(printed) if n not in unscored}
    assert scored, printed
    return sum(scored.values()), {name for name, passed in scored.items() if not passed}


ASKS_IN_ITS_OWN_WAY = {
    "server-stateless",
    "input-required-result-basic-elicitation",
    "input-required-result-multiple-input-requests",
    "input-required-result-multi-round",
    "input-required-result-capability-check",
}
"""What a server of the old era cannot do: choose the keys of its questions, ask several at once, or
know what the client of one call has declared."""

NUMBERS = re.findall(
    r"^\| (\S+) \| (auto|legacy) \| (\d+) of (\d+) \|", (ROOT / "docs/mcp.md").read_text(), re.M
)


@pytest.mark.parametrize(("requirements", "behind", "passed", "of"), NUMBERS)
async def test_the_bridge_conforms_as_a_server(
    requirements: str, behind: str, passed: str, of: str
) -> None:
    async with everything_app() as app, serving(app) as site:
        server = {"url": f"{site.url}/mcp", "transport": "http", "protocol": behind}
        async with house({"everything": server}) as opened:
            url = opened.mcp.replace("127.0.0.1", "localhost")
            printed = await conformance("server", "--url", url, "--requirements", requirements)
    good, bad = score(printed)
    assert (good, good + len(bad)) == (int(passed), int(of)), printed
    expected = (requirements, behind) == ("2026-07-28", "legacy")
    assert bad == (ASKS_IN_ITS_OWN_WAY if expected else set())


CLIENT_SCENARIOS = {
    "2025-11-25": (
        "initialize",
        "tools_call",
        "elicitation-sep1034-client-defaults",
        "sse-retry",
        "json-schema-2020-12-preservation",
    ),
    "2026-07-28": (
        "tools_call",
        "request-metadata",
        "sep-2322-client-request-state",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
    ),
}


def test_the_documents_have_a_number_for_each_set_and_era() -> None:
    assert [(requirements, behind) for requirements, behind, _, _ in NUMBERS] == [
        ("2025-11-25", "auto"),
        ("2026-07-28", "auto"),
        ("2025-11-25", "legacy"),
        ("2026-07-28", "legacy"),
    ]


@pytest.mark.parametrize(
    ("version", "scenario"),
    [(version, name) for version, names in CLIENT_SCENARIOS.items() for name in names],
)
async def test_the_bridge_conforms_as_a_client(version: str, scenario: str) -> None:
    async with serving(driver.app) as site:
        command = f"{sys.executable} {RELAY} {site.port}"
        printed = await conformance(
            "client", "--command", command, "--scenario", scenario, "--spec-version", version
        )
    assert re.search(r"\b0 failed", printed), printed
