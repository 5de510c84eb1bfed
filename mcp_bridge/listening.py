"""The sockets that the bridge listens on."""

import errno
import socket
from contextlib import ExitStack

from mcp_bridge.config.settings import Network
from mcp_bridge.errors import ConfigError

BACKLOG = 2048
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""`localhost` has an IPv6 address also where the system has no IPv6: the other one is enough."""

ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # read, not bound


def listen(network: Network) -> list[socket.socket]:
    """Take the port, before anything is started that would have to be stopped again.

    Raises:
        ConfigError: the address or the port cannot be had.
    """
    sockets: list[socket.socket] = []
    port = network.port
    with ExitStack() as undo:
        for family, address in _addresses(network):
            try:
                taken = socket.create_server((address, port), family=family, backlog=BACKLOG)
            except OSError as exc:
                if exc.errno not in NOT_HERE:
                    raise ConfigError([_refused(network, exc)]) from exc
                continue
            sockets.append(undo.enter_context(taken))
            port = taken.getsockname()[1]  # 0 has become a number, the same for each address
        if not sockets:
            raise ConfigError(
                [f'network.host: this machine has no address "{network.host}"; 127.0.0.1 works']
            )
        undo.pop_all()
    return sockets


def url_of(network: Network, sockets: list[socket.socket]) -> str:
    """What clients on this machine set as their base URL."""
    host = ANY.get(network.host, network.host).strip("[]")
    port = sockets[0].getsockname()[1]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def _addresses(network: Network) -> list[tuple[int, str]]:
    """The addresses behind the host, `localhost` being two."""
    host = network.host.strip("[]") or None
    try:
        found = socket.getaddrinfo(
            host, network.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as exc:
        raise ConfigError([f'network.host: there is no address for "{network.host}"']) from exc
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _refused(network: Network, error: OSError) -> str:
    host, port = network.host, network.port
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"network.port: port {port} of {host} is in use; end the program that has it, "
                "or choose another with --port (0: any free one)"
            )
        case errno.EACCES:
            return f"network.port: port {port} needs privileges; choose one above 1023 with --port"
        case _:
            return f"network: cannot listen on {host}, port {port}: {error}"
