"""What the Dockerfile and compose.yml promise. No engine builds them here: they are read."""

import ast
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_bridge.config.load import load
from mcp_bridge.errors import ConfigError

ROOT = Path(__file__).parent.parent


@dataclass
class Stage:
    """One FROM of a Dockerfile, and what follows it: (instruction, the rest), in order."""

    image: str
    name: str = ""
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [rest for word, rest in self.steps if word == instruction]

    def one(self, instruction: str) -> str:
        (rest,) = self.all(instruction)
        return rest

    @property
    def env(self) -> dict[str, str]:
        return dict(part.split("=", 1) for rest in self.all("ENV") for part in rest.split())


def stages() -> list[Stage]:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    found: list[Stage] = []
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            found.append(Stage(image, name))
        elif word:
            found[-1].steps.append((word, " ".join(rest.split())))
    return found


@pytest.fixture
def image() -> Stage:
    """The stage that is shipped."""
    return stages()[-1]


def test_every_base_image_is_slim_and_of_the_same_debian() -> None:
    for stage in stages():
        version, *variants = stage.image.partition(":")[2].split("-")
        assert version[0].isdigit()
        assert sorted(variants) == ["bookworm", "slim"]


def test_the_bridge_does_not_run_as_root(image: Stage) -> None:
    user, _, group = image.one("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    after = image.steps[image.steps.index(("USER", image.one("USER"))) :]
    assert "COPY" not in dict(after), "what is copied after USER belongs to root all the same"


def test_what_uvx_and_npx_servers_need_is_there_and_tried_by_the_build(image: Stage) -> None:
    tried = [step for step in image.all("RUN") if "uvx --version" in step]
    assert len(tried) == 1
    for program in ("node", "npx", "git", "mcp-bridge"):
        assert f"{program} " in tried[0]
    assert image.steps.index(("RUN", tried[0])) > image.steps.index(("USER", image.one("USER")))


def test_downloads_of_servers_are_kept_in_a_volume(image: Stage) -> None:
    """Servers get HOME and not our environment, so both caches must be found from there."""
    volume = image.one("VOLUME")
    assert volume == f"{image.env['HOME']}/.cache"  # where uv keeps its own, without being told
    assert any(f"npm config set --location=global cache {volume}/" in s for s in image.all("RUN"))
    assert any(volume in step and "-o bridge" in step for step in image.all("RUN"))


def test_children_that_servers_leave_behind_are_collected(image: Stage) -> None:
    assert json.loads(image.one("ENTRYPOINT")) == ["tini", "--", "mcp-bridge"]
    assert json.loads(image.one("CMD")) == ["serve"]
    assert any(" tini" in step for step in image.all("RUN"))


def test_the_image_itself_opens_no_address(image: Stage) -> None:
    """Loopback unless the configuration says otherwise, and then not without keys (X1)."""
    assert not [name for name in image.env if "HOST" in name or "ALLOW" in name]
    with pytest.raises(ConfigError, match=r"security\.auth\.enabled"):
        load(environ={**image.env, "MCP_BRIDGE__NETWORK__HOST": "0.0.0.0"})


def test_what_is_copied_exists_and_is_sent_to_the_builder() -> None:
    allowed = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    for stage in stages():
        for step in stage.all("COPY"):
            *sources, _ = step.split()
            if sources[0].startswith("--from="):
                assert sources[0].removeprefix("--from=") in {s.name for s in stages()}
                continue
            for name in sources:
                assert (ROOT / name).exists()
                assert name in allowed


def health_check(image: Stage, **env: str) -> int:
    command = json.loads(image.one("HEALTHCHECK").partition("CMD ")[2])
    assert command[0] == "python"
    ast.parse(command[2])
    ran = subprocess.run(
        [sys.executable, *command[1:]],
        env=os.environ | image.env | env,
        stderr=subprocess.DEVNULL,
        timeout=30,
    )
    return ran.returncode


@contextmanager
def web_server(status: int) -> Iterator[tuple[str, list[str]]]:
    """The port of a server that answers `status` to everything, and the paths it was asked for."""
    asked: list[str] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """The tests' output stays clean."""

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield str(server.server_port), asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_asks_healthz(image: Stage, status: int, code: int) -> None:
    assert image.env["MCP_BRIDGE__NETWORK__PORT"] == image.one("EXPOSE")
    with web_server(status) as (port, asked):
        assert health_check(image, MCP_BRIDGE__NETWORK__PORT=port) == code
    assert asked == ["/healthz"]


# compose.yml


@pytest.fixture
def compose() -> Any:
    return yaml.safe_load((ROOT / "compose.yml").read_text())


def test_open_webui_speaks_to_the_bridge_with_its_key(compose: Any, image: Stage) -> None:
    webui = compose["services"]["open-webui"]
    env = webui["environment"]
    assert env["OPENAI_API_BASE_URL"] == f"http://bridge:{image.one('EXPOSE')}/v1"
    assert env["OPENAI_API_KEY"].startswith("${BRIDGE_KEY")
    assert compose["services"]["bridge"]["environment"]["BRIDGE_KEY"].startswith("${BRIDGE_KEY:?")
    assert webui["depends_on"]["bridge"]["condition"] == "service_healthy"


def test_the_configuration_that_compose_mounts_loads(compose: Any, image: Stage) -> None:
    service = compose["services"]["bridge"]
    environ = {**image.env, **service["environment"], "BRIDGE_KEY": "a-key"}
    folders = dict(mount.split(":")[:2] for mount in service["volumes"])
    folder, _, name = environ["MCP_BRIDGE__CONFIG__FILE"].rpartition("/")
    (here,) = (ours for ours, theirs in folders.items() if theirs == folder)
    del environ["MCP_BRIDGE__CONFIG__FILE"]

    loaded = load(str(ROOT / here / name), environ)

    assert loaded.warnings == ()
    settings = loaded.settings
    assert settings.network.host == "0.0.0.0"
    assert settings.security.auth.api_keys[0].key.get_secret_value() == "a-key"
    assert settings.inference_server[0].base_url == "http://ollama:11434/v1"
    assert {server.command for server in settings.mcp_servers.values()} == {"uvx", "npx"}
    assert [server.problem for server in settings.mcp_servers.values() if server.problem] == []


def test_the_bridge_keeps_its_downloads_in_a_named_volume(compose: Any, image: Stage) -> None:
    mounts = dict(m.split(":")[:2] for m in compose["services"]["bridge"]["volumes"])
    named = {theirs: ours for ours, theirs in mounts.items() if ours in compose["volumes"]}
    assert image.one("VOLUME") in named


def test_every_volume_and_service_that_compose_names_is_there(compose: Any) -> None:
    services = compose["services"]
    used = {m.split(":")[0] for s in services.values() for m in s.get("volumes", ())}
    assert {name for name in used if not name.startswith(".")} == set(compose["volumes"])
    wanted = {name for s in services.values() for name in s.get("depends_on", ())}
    assert wanted <= set(services)
    assert set(services) >= {"bridge", "ollama", "open-webui"}


def test_compose_publishes_nothing_beyond_this_machine(compose: Any) -> None:
    ports = [port for s in compose["services"].values() for port in s.get("ports", ())]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)
