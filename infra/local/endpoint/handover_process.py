"""A scoring process that receives its connections from this process, over a Unix socket."""

import asyncio
import contextlib
import errno
import json
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from model.serving.config import ServingConfig
from model.serving.process import ScoringProcess, spawn

MAX_UNACKNOWLEDGED: Final = 128
START_SECONDS: Final = 120.0
BUSY: Final = (errno.EAGAIN, errno.ENOBUFS, getattr(errno, "ETOOMANYREFS", errno.EAGAIN))


class HandoverProcess(ScoringProcess):
    """A scoring process with a channel to hand it connections; each is this process's too until it acknowledges it.

    Attributes:
        port: Where this process alone answers, once it is ready.
        failure: Why it ended before it was ready, in its own words.
    """

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        super().__init__(process)
        self.port = 0
        self.failure = ""
        self.on_room: Callable[[], None] = lambda: None
        self._channel = channel
        self._unacknowledged: deque[socket.socket] = deque()
        self._loop = asyncio.get_running_loop()
        self._start: asyncio.Future[bool] = self._loop.create_future()
        self._loop.add_reader(channel, self._read_acknowledgements)
        self._events = asyncio.create_task(self._read_events())

    @classmethod
    async def start(cls, config: ServingConfig, log: Path) -> "HandoverProcess":
        channel, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.setblocking(False)
        with remote, log.open("ab") as output:
            config = config.model_copy(update={"handover_fd": remote.fileno()})
            return cls(await spawn(config, log=output, events=True), channel)

    @property
    def ready(self) -> bool:
        return self._start.done() and self._start.result() and self.exit_code is None

    @property
    def has_room(self) -> bool:
        """Whether it may be handed one more connection."""
        return self.ready and len(self._unacknowledged) < MAX_UNACKNOWLEDGED

    async def wait_ready(self) -> bool:
        """False where it ended, or did not get ready in time."""
        await asyncio.wait({self._start}, timeout=START_SECONDS)
        if not self._start.done():
            self.failure = f"It was not ready after {START_SECONDS:g} s."
        return self.ready

    def hand(self, connection: socket.socket) -> bool:
        """Give it an accepted connection; False where it can't take one now."""
        try:
            socket.send_fds(self._channel, [b"c"], [connection.fileno()])
        except OSError as error:
            if error.errno in (*BUSY, errno.EPIPE, errno.ECONNRESET):
                return False
            raise
        self._unacknowledged.append(connection)
        return True

    def reclaim(self) -> list[socket.socket]:
        """After its end: the connections that it never took."""
        connections = list(self._unacknowledged)
        self._unacknowledged.clear()
        return connections

    def kill_if_hanging(self) -> None:
        """Kill it where it has not taken all the connections that it was handed."""
        if self._unacknowledged:
            self.kill()

    async def wait(self) -> int:
        """Its exit code, once it has ended and all its events are read."""
        code = await super().wait()
        await self._events
        if self._channel.fileno() >= 0:
            self._read_acknowledgements()  # of its last moment
            self._loop.remove_reader(self._channel)
            self._channel.close()
        return code

    async def _read_events(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                self._note(json.loads(line))
        await self._process.wait()
        if not self._start.done():
            self._start.set_result(False)

    def _note(self, event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            self.port = event["port"]
            self._start.set_result(True)
        elif event["event"] == "failed":
            self.failure = f"{event['error']}: {event['message']}"

    def _read_acknowledgements(self) -> None:
        try:
            count = len(self._channel.recv(4096))
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self._loop.remove_reader(self._channel)
            return
        for _ in range(min(count, len(self._unacknowledged))):
            self._unacknowledged.popleft().close()
        self.on_room()
