"""The port of an environment: connections are accepted here and handed on whole, to the live version or a candidate."""

import asyncio
import logging
import socket
from collections import deque
from typing import Final

from infra.local.endpoint.handover_process import HandoverProcess
from infra.local.endpoint.version_runner import VersionRunner

BACKLOG: Final = 1024
ACCEPTED_AT_ONCE: Final = 64
RETRY_SECONDS: Final = 0.05
PARTS: Final = 10_000
"""A share of the connections is counted in these: whole numbers don't drift."""

log = logging.getLogger("supervisor")


class Listener:
    """Accepts connections as long as the live version can take them; otherwise they wait in the port's queue.

    Where a candidate has a share of them, they are dealt evenly, not by luck: of 100 connections, 10 % are 10. What a
    candidate can't take goes to the live version.
    """

    def __init__(self, port: socket.socket) -> None:
        self._socket = port
        self._live: VersionRunner | None = None
        self._candidate: VersionRunner | None = None
        self._share = 0
        self._due = 0
        self._queue: deque[socket.socket] = deque()
        self._listening = False
        self._accepting = False
        self._loop = asyncio.get_running_loop()

    @property
    def share(self) -> float:
        """The share of new connections that the candidate gets."""
        return self._share / PARTS

    def serve(self, version: VersionRunner) -> None:
        """From now on every new connection goes to this version; no candidate has a share any more."""
        self._live = version
        self.split(None)
        if not self._listening:
            self._socket.listen(BACKLOG)
            self._listening = True
        self._hand_over()

    def split(self, candidate: VersionRunner | None, share: float = 0) -> None:
        """From now on this candidate gets this share of new connections, and no other one gets any."""
        self._candidate = candidate
        self._share = round(share * PARTS)
        self._due = 0

    def resume(self, unserved: list[socket.socket]) -> None:
        """A version became ready, has room again, or ended without having taken these connections."""
        self._queue.extend(unserved)
        self._hand_over()

    def close(self) -> None:
        self._stop_accepting()
        self._listening = False
        self._socket.close()
        for connection in self._queue:
            connection.close()

    def _hand_over(self) -> None:
        live = self._live.process if self._live is not None else None
        while self._queue and live is not None and live.has_room and self._deal(self._queue[0], live):
            self._queue.popleft()
        if not self._listening or live is None or not live.has_room:
            self._stop_accepting()
        elif self._queue:
            self._stop_accepting()
            self._loop.call_later(RETRY_SECONDS, self._hand_over)
        else:
            self._start_accepting()

    def _deal(self, connection: socket.socket, live: HandoverProcess) -> bool:
        """Hand on one connection; a part of one is owed to the candidate each time, until it is a whole one."""
        due = self._due + self._share
        candidate = self._candidate.process if self._candidate is not None and due >= PARTS else None
        passed = candidate is not None and candidate.has_room and candidate.hand(connection)
        if not passed and not live.hand(connection):
            return False
        self._due = due % PARTS
        return True

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                break
            except OSError as error:
                # Out of descriptors or memory: the clients wait in the port's queue.
                log.warning("Can't accept connections now: %s.", error)
                self._stop_accepting()
                self._loop.call_later(RETRY_SECONDS, self._hand_over)
                return
            self._queue.append(connection)
        self._hand_over()

    def _start_accepting(self) -> None:
        if not self._accepting:
            self._loop.add_reader(self._socket, self._accept)
            self._accepting = True

    def _stop_accepting(self) -> None:
        if self._accepting:
            self._loop.remove_reader(self._socket)
            self._accepting = False
