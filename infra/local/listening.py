"""Take a port of this machine, or say who has it."""

import errno
import socket

from infra.errors import ConfigurationError, PortInUse
from infra.local.port_owner import port_owner


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
