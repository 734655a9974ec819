"""TCP ports of this machine: which are free, and whose server answers on one."""

from __future__ import annotations

import errno
import ipaddress
import random
import socket

from ..patches.errors import LostattnError

PORTS = range(20000, 32000)  # below the ports that the system gives to outgoing connections
EVERYWHERE = {"0.0.0.0", "::"}  # what a server listens at that listens at every address


def free_port(host: str) -> int:
    """A port that nobody uses on any address of the host. LostattnError if the host is no address of this machine."""
    for port in random.sample(PORTS, 50):
        if not is_taken(host, port):
            return port
    raise LostattnError(f"no port of 50 that were tried is free on {host}: give one with --port")


def need_free(host: str, port: int) -> None:
    """LostattnError if a server could not listen there, or could but others would answer in its place."""
    if is_taken(host, port):
        raise LostattnError(taken(port))


def taken(port: int) -> str:
    """The sentence about a port that somebody else uses."""
    return f"port {port} is taken: choose another with --port, or end what listens there"


def is_taken(host: str, port: int) -> bool:
    """Whether another process listens at any address of the host.

    It is tried without SO_REUSEPORT, with which several servers of one user share a port and take turns.

    Raises:
        LostattnError: the host is no address of this machine, or the user may not open the port.
    """
    opened = 0
    for family, address in _addresses(host, port):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(
                    socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
                )  # connections that ended just now do not count
                probe.bind(address)
                probe.listen(1)
                opened += 1
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            if error.errno in (errno.EACCES, errno.EPERM):
                raise LostattnError(f"port {port} may not be opened by this user: choose one above 1023") from error
    if not opened:
        raise _no_address(host)
    return False


def reached_at(host: str) -> str:
    """The address at which this machine reaches a server that listens at `host`."""
    try:
        result = ipaddress.ip_address(host or "0.0.0.0")
    except ValueError:
        return host
    if result.is_unspecified:
        return "::1" if result.version == 6 else "127.0.0.1"
    return host


def answers_itself(pid: int, host: str, port: int) -> bool | None:
    """Whether it is this process or a child of it that listens on the port, and nobody else beside it.

    Returns:
        None where the system does not tell.
    """
    try:
        import psutil
    except ImportError:
        return None
    try:
        root = psutil.Process(pid)
        own = {process.pid for process in (root, *root.children(recursive=True))}
        listening = [
            c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port
        ]
    except (OSError, RuntimeError, psutil.Error):
        return None
    ours = [c for c in listening if c.pid in own]
    wanted = {str(address[0]) for _, address in _addresses(host, port)} | {reached_at(host)} | EVERYWHERE
    others = [c for c in listening if c.pid not in own and c.laddr.ip in wanted]
    return bool(ours) and not others


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    """Family and address of every address that a host's name stands for."""
    try:
        result = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise _no_address(host) from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in result))


def _no_address(host: str) -> LostattnError:
    return LostattnError(f"no port can be opened on {host}: use 127.0.0.1, or one of this machine's own addresses")
