"""One scoring process as its supervisor holds it: commands on its stdin, events on its stdout, connections to it."""

import asyncio
import contextlib
import errno
import json
import socket
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from infra.settings import PROJECT
from infra.version import platform

MAX_UNACKNOWLEDGED: Final = 128
START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 10.0
BUSY: Final = (errno.EAGAIN, errno.ENOBUFS, getattr(errno, "ETOOMANYREFS", errno.EAGAIN))


class ScoringProcess:
    """A running `python -m model.serving --supervised`.

    Attributes:
        port: Where this process alone answers, once it is ready.
        failure: Why it ended before it was ready, in its own words.
    """

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        self.port = 0
        self.failure = ""
        self.on_room: Callable[[], None] = lambda: None
        self._process = process
        self._channel = channel
        self._ready = asyncio.Event()
        self._unacknowledged: deque[socket.socket] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(channel, self._acknowledged)
        self._events = asyncio.create_task(self._follow())

    @classmethod
    async def start(cls, config: dict[str, Any], log: Path) -> "ScoringProcess":
        """Start it; `config` is the JSON form of `model.serving.config.ServingConfig`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        with theirs, log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "model.serving",
                "--supervised",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                pass_fds=(theirs.fileno(),),
                cwd=PROJECT,
            )
            handle = cls(process, ours)
            handle._send({"platform": platform(), **config, "handover_fd": theirs.fileno()})
        return handle

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    @property
    def ready(self) -> bool:
        return self._ready.is_set() and self.exit_code is None

    @property
    def has_room(self) -> bool:
        """Whether it may be handed one more connection."""
        return self.ready and len(self._unacknowledged) < MAX_UNACKNOWLEDGED

    @property
    def took_all(self) -> bool:
        """Whether it has taken all the connections that it was handed."""
        return not self._unacknowledged

    async def wait_ready(self) -> bool:
        """False where it ended, or did not get ready in time."""
        ready, ended = asyncio.create_task(self._ready.wait()), asyncio.create_task(self._process.wait())
        await asyncio.wait({ready, ended}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in (ready, ended):
            task.cancel()
        if not self.ready:
            if self.exit_code is None:
                self.failure = f"It was not ready after {START_SECONDS:g} s."
            else:
                await self._events
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

    def command(self, do: str, **arguments: Any) -> None:
        self._send({"do": do, **arguments})

    async def wait(self) -> int:
        """Its exit code, once it has ended and all its last words are read."""
        code = await self._process.wait()
        await self._events
        if self._channel.fileno() >= 0:
            self._acknowledged()  # what it took in its last moment
            self._loop.remove_reader(self._channel)
            self._channel.close()
        return code

    async def stop(self) -> None:
        """End it: it answers what it has begun; where that takes too long, it is killed."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
            except TimeoutError:
                self.kill()
        await self.wait()

    def kill(self) -> None:
        """End it at once, with all it has begun."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _follow(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                self._note(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            self.port = event["port"]
            self._ready.set()
        elif event["event"] == "failed":
            self.failure = f"{event['error']}: {event['message']}"

    def _acknowledged(self) -> None:
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
