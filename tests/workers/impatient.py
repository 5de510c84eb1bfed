"""Two workers whose supervisor has little patience: `python -m tests.workers.impatient CONFIG`."""

import sys

from mcp_bridge.cli import announcing
from mcp_bridge.config.load import load
from mcp_bridge.listening import listen
from mcp_bridge.telemetry.logging import set_up
from mcp_bridge.workers.supervise import Plan, supervise

ASK_SECONDS = 0.5


def main(path: str) -> None:
    loaded = load(path)
    set_up(loaded.settings)
    sockets = listen(loaded.settings.network)
    plan = Plan(loaded, path, {}, sockets, ask_seconds=ASK_SECONDS)
    supervise(plan, announcing(loaded, sockets))


if __name__ == "__main__":
    main(sys.argv[1])
