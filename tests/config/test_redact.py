"""What the operator may see."""

import json

from mcp_bridge.config.redact import redacted
from tests.config.reading import Reader

SECRETS = [f"hunter{n}" for n in range(12)]


def test_no_secret_is_shown_wherever_it_stands(read: Reader) -> None:
    s = iter(SECRETS)
    data = {
        "inference_server": {
            "base_url": f"https://user:{next(s)}@host:1/v1?key={next(s)}",
            "api_key": next(s),
            "headers": {"X-Key": next(s)},
        },
        "mcp_servers": {
            "a": {
                "command": "npx",
                "args": [
                    "server",
                    "--token",
                    next(s),
                    f"--api-key={next(s)}",
                    "--header",
                    f"Authorization: Bearer {next(s)}",
                    f"postgres://u:{next(s)}@db/x",
                    f"--dsn=postgres://u:{next(s)}@db/x",
                    "--verbose",
                ],
                "env": {"TOKEN": next(s)},
            },
            "b": {"url": f"https://host/mcp?apiKey={next(s)}", "headers": {"A": "B"}},
        },
        "security": {"auth": {"enabled": True, "api_keys": [{"key": next(s), "name": "me"}]}},
    }
    shown = redacted(read(data).settings)
    text = json.dumps(shown)
    assert [secret for secret in SECRETS if secret in text] == []
    a, b = shown["mcp_servers"]["a"], shown["mcp_servers"]["b"]
    assert a["args"] == [
        "server",
        "--token",
        "**********",
        "--api-key=**********",
        "--header",
        "Authorization: **********",
        "postgres://**********@db/x",
        "--dsn=postgres://**********@db/x",
        "--verbose",
    ]
    assert a["env"] == {"TOKEN": "**********"}
    assert b["url"] == "https://host/mcp?apiKey=**********"
    assert shown["inference_server"][0]["base_url"] == (
        "https://**********@host:1/v1?key=**********"
    )
    assert shown["security"]["auth"]["api_keys"][0]["name"] == "me"


def test_what_is_no_secret_stays_as_it_is(read: Reader) -> None:
    entry = {"url": "https://host/mcp", "args": []}
    args = ["-y", "pkg@1.0", "--path=/data", "https://host/x"]
    settings = read({"mcp_servers": {"a": entry, "b": {"command": "npx", "args": args}}}).settings
    shown = redacted(settings)["mcp_servers"]
    assert shown["a"]["url"] == "https://host/mcp"
    assert shown["b"]["args"] == args


def test_why_a_server_is_disabled_is_shown(read: Reader) -> None:
    settings = read({"mcp_servers": {"a": {"command": "x", "env": {"T": "${T}"}}}}).settings
    assert "variable T is not set" in redacted(settings)["mcp_servers"]["a"]["problem"]
