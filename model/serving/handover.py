"""Connections that another process accepted: received over a Unix socket and served as if accepted here.

The supervisor keeps its own copy of each until this process has acknowledged it, so a process that dies with
connections still unread in the socket loses none of them.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

ACKNOWLEDGEMENT: Final = b"a"
MAX_AT_ONCE: Final = 16


class Handover:
    """The receiving end.

    Args:
        channel: A connected Unix stream socket; each byte on it carries one connection.
        protocol: Makes the protocol of a connection.
        has_room: Whether one more connection may be taken; where not, they wait in the channel.
    """

    def __init__(
        self, channel: socket.socket, protocol: Callable[[], asyncio.Protocol], has_room: Callable[[], bool]
    ) -> None:
        self._channel = channel
        self._protocol = protocol
        self._has_room = has_room
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        channel.setblocking(False)
        self._loop.add_reader(channel, self._receive)

    @property
    def pending(self) -> int:
        """Connections that were received and have no protocol yet."""
        return len(self._tasks)

    def close(self) -> None:
        self._loop.remove_reader(self._channel)
        self._channel.close()

    def _receive(self) -> None:
        for _ in range(MAX_AT_ONCE):
            if not self._has_room():
                self._loop.remove_reader(self._channel)
                self._loop.call_later(0.1, self._resume)
                return
            try:
                # One byte at a time, so that no two connections can come in one control message.
                data, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
            except BlockingIOError:
                return
            if not data:
                self._loop.remove_reader(self._channel)
                return
            for descriptor in descriptors:
                self._take(socket.socket(fileno=descriptor))

    def _resume(self) -> None:
        if self._channel.fileno() >= 0:
            self._loop.add_reader(self._channel, self._receive)

    def _take(self, connection: socket.socket) -> None:
        self._channel.send(ACKNOWLEDGEMENT)
        connection.setblocking(False)
        task = self._loop.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:
            connection.close()  # the client left before it was served
