"""Ports of this machine: take one, or name the program that has it."""

import errno
import socket

import psutil

from infra.errors import ConfigurationError, PortInUse


def port_owner(port: int) -> str:
    """The program that listens on a port, in words: as much as this user may see."""
    try:
        listening = [item for item in psutil.net_connections(kind="tcp") if item.status == psutil.CONN_LISTEN]
    except psutil.AccessDenied:
        return "another program (the system doesn't show which one)"
    pids = [item.pid for item in listening if item.laddr and item.laddr.port == port and item.pid]
    if not pids:
        return "a program of another user"
    try:
        process = psutil.Process(pids[0])
        command = " ".join(process.cmdline())[:120] or process.name()
    except psutil.Error:
        return f"process {pids[0]}"
    return f"process {pids[0]} (`{command}`)"


def listen(host: str, port: int, purpose: str) -> socket.socket:
    """A socket that listens on `host:port` and may be handed to a child process.

    Raises:
        PortInUse: Names the program that has the port.
        ConfigurationError: The address is not one of this machine.
    """
    try:
        listener = socket.create_server((host, port), backlog=256)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"Port {port}, which the platform needs for {purpose}, is used by {port_owner(port)}.",
                next_step=f"Stop that program, or choose another port for {purpose} (see `ahc doctor`).",
            ) from error
        raise ConfigurationError(f"Can't listen on {host}:{port} for {purpose}: {error.strerror or error}.") from error
    listener.set_inheritable(True)
    return listener


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that doesn't listen yet: clients are refused until there is a version to serve them.

    Raises:
        PortInUse: Names the program that has it, where the system tells.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"Port {port} is taken by {port_owner(port)}.") from error
        raise PortInUse(f"Can't listen on {host}:{port}: {error.strerror}.") from error
    return listener
