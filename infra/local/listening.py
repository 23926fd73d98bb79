"""Ports of this machine: take one, or say who has it."""

import errno
import socket

from infra.errors import ConfigurationError, PortInUse


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
                f"Port {port}, which the platform needs for {purpose}, is used by {holder(port)}.",
                next_step=f"Stop that program, or choose another port for {purpose} (see `ahc doctor`).",
            ) from error
        raise ConfigurationError(f"Can't listen on {host}:{port} for {purpose}: {error.strerror or error}.") from error
    listener.set_inheritable(True)
    return listener


def holder(port: int) -> str:
    """The program that listens on `port`, in words."""
    import psutil

    try:
        found = [item for item in psutil.net_connections("tcp") if item.status == psutil.CONN_LISTEN]
    except psutil.AccessDenied:
        found = []
    pids = sorted({item.pid for item in found if item.laddr and item.laddr.port == port and item.pid})
    if not pids:
        return "a program of another user"
    try:
        command = " ".join(psutil.Process(pids[0]).cmdline())[:120]
    except psutil.Error:
        command = "unknown"
    return f"process {pids[0]} ({command})"
