"""Starting what is measured: each on a free port, with the inference server behind it."""

import json
import shutil
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.processes import (
    Watched,
    await_url,
    cores,
    free_port,
    python,
    started,
)
from benchmarks.scenarios import KEY, SERVERS
from benchmarks.servers import echo

MOST_CONNECTIONS = 4096

NGINX = """
worker_processes 1;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  keepalive_requests 100000000;
  client_max_body_size 64m;
  upstream inference {{ server 127.0.0.1:{inference}; keepalive 1024;
                        keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://inference;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A server that answers chat completions. Without a process only its times are measured."""

    name: str
    url: str
    process: Watched | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    bridges_tools: bool = True
    seconds: float = 0.0
    """From its start until it was ready."""

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "127.0.0.1"

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 80

    @property
    def chat(self) -> str:
        return f"{urlsplit(self.url).path.rstrip('/')}/chat/completions"


@contextmanager
def inference(folder: Path, port: int | None = None) -> Generator[Target]:
    """The mock inference server, which is also the direct way."""
    port = port or free_port()
    command = python("benchmarks.inference", "--port", str(port))
    with started(command, cores()[1], log=folder / "inference.log") as process:
        seconds = await_url(f"http://127.0.0.1:{port}/v1/models", process)
        url = f"http://127.0.0.1:{port}/v1"
        yield Target("direct", url, None, bridges_tools=False, seconds=seconds)


def nginx_is_there() -> bool:
    return shutil.which("nginx") is not None


@contextmanager
def nginx(folder: Path, behind: Target) -> Generator[Target]:
    """nginx as a reverse proxy without buffering: the physical limit."""
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, inference=behind.port))
    command = ["nginx", "-c", str(config), "-p", str(folder)]
    with started(command, cores()[0], log=folder / "nginx.log") as process:
        url = f"http://127.0.0.1:{port}/v1"
        seconds = await_url(f"{url}/models", process)
        yield Target("nginx", url, process, bridges_tools=False, seconds=seconds)


@contextmanager
def least(kind: str, folder: Path, behind: Target, tools: int = 10) -> Generator[Target]:
    """The least that bridges tools, `bare` or inside `fastapi`."""
    port = free_port()
    command = python("benchmarks.servers.least", kind, "--port", str(port))
    command += ["--inference", behind.url, "--tools", str(tools)]
    env = {"BENCH_CORES": ",".join(map(str, cores()[1]))}
    with started(command, cores()[0], env=env, log=folder / f"{kind}.log") as process:
        seconds = await_url(f"http://127.0.0.1:{port}/readyz", process)
        yield Target(kind, f"http://127.0.0.1:{port}/v1", process, seconds=seconds)


def echo_server(prefix: str, count: int) -> dict[str, Any]:
    """The entry of an echo server in a configuration."""
    return {
        "command": sys.executable,
        "args": ["-I", "-S", str(Path(echo.__file__)), prefix, str(count)],
        "env": {"BENCH_CORES": ",".join(map(str, cores()[1]))},
        "required": True,
    }


def configuration(behind: Target, servers: Mapping[str, Any]) -> dict[str, Any]:
    """A bridge as people run it: keys checked, everything logged, all that is on by default."""
    return {
        "inference_server": {"base_url": behind.url, "max_connections": MOST_CONNECTIONS},
        "mcp_servers": dict(servers),
        "security": {"auth": {"enabled": True, "api_keys": [{"key": KEY, "name": "bench"}]}},
        "network": {"host": "127.0.0.1"},
        "logging": {"log_level": "INFO"},
    }


def three_servers(tools: int = 10) -> dict[str, Any]:
    return {prefix: echo_server(prefix, tools) for prefix in SERVERS}


@contextmanager
def bridge(
    folder: Path,
    behind: Target,
    servers: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    run: Sequence[str] = ("mcp_bridge",),
) -> Generator[Target]:
    """mcp_bridge itself; `more` are sections to add to its configuration, `run` is its module."""
    port = free_port()
    config = folder / f"bridge-{port}.json"
    chosen = three_servers() if servers is None else servers
    config.write_text(json.dumps({**configuration(behind, chosen), **(more or {})}))
    command = python(*run, "serve", "--config", str(config), "--port", str(port))
    headers = {"authorization": f"Bearer {KEY}"}
    # Not beside the configuration, whose folder the bridge watches.
    (logs := folder / "logs").mkdir(exist_ok=True)
    with started(command, cores()[0], log=logs / "bridge.log") as process:
        seconds = await_url(f"http://127.0.0.1:{port}/readyz", process)
        yield Target("mcp_bridge", f"http://127.0.0.1:{port}/v1", process, headers, True, seconds)
