"""A model version that is kept running: its process is started again, ever more patiently, whenever it ends."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from infra.local.endpoint.scoring_process import ScoringProcess
from infra.local.endpoint.state import Deployment

BACKOFF: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
STABLE_SECONDS: Final = 30.0
DRAIN_SECONDS: Final = 120.0
TAKING_SECONDS: Final = 5.0
"""Whoever has not taken a connection for so long hangs."""

log = logging.getLogger("supervisor")


class KeptVersion:
    """One deployment and the process that serves it now.

    Args:
        deployment: What it serves.
        config: Its serving config as of this moment; asked for at each start.
        on_change: Called when it became ready or ended, with the connections that it never took.
    """

    def __init__(
        self,
        deployment: Deployment,
        config: Callable[[Deployment], dict[str, Any]],
        log_file: Path,
        on_change: Callable[[list[socket.socket]], None],
    ) -> None:
        self.deployment = deployment
        self.restarts = 0
        self.keep = False
        self.process: ScoringProcess | None = None
        self.failure = ""
        self.exit_code: int | None = None
        self._config = config
        self._log_file = log_file
        self._on_change = on_change
        self._retired = False
        self._check: asyncio.TimerHandle | None = None
        self._serving = asyncio.Event()
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())

    @property
    def ready(self) -> bool:
        return self.process is not None and self.process.ready

    @property
    def ended(self) -> bool:
        return self._task.done()

    async def first_start(self) -> bool:
        """Whether its first process became ready."""
        return bool(await asyncio.shield(self._first))

    async def wait_ready(self, seconds: float) -> bool:
        """Whether it is ready within this time, restarts included."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.ready:
                    await self._serving.wait()
                    await asyncio.sleep(0.01)
        return self.ready

    def retire(self) -> None:
        """Close each connection with its next answer; what it was handed and doesn't take goes elsewhere."""
        self._retired = True
        self.command("retire")
        self._watch_for_hanging()

    def resume(self) -> None:
        self._retired = False
        if self._check is not None:
            self._check.cancel()
        self.command("resume")

    def command(self, do: str, **arguments: Any) -> None:
        if self.process is not None:
            self.process.command(do, **arguments)

    async def drain(self) -> None:
        """End it when its last connection is closed."""
        self.keep = False
        self.retire()
        self.command("drain")
        done, _ = await asyncio.wait({self._task}, timeout=DRAIN_SECONDS)
        if not done:
            await self.stop()

    async def stop(self) -> None:
        self.keep = False
        if self.process is not None:
            await self.process.stop()
        done, _ = await asyncio.wait({self._task}, timeout=1)
        if not done:  # it waits to start again
            self._task.cancel()
            await asyncio.wait({self._task})

    def describe(self) -> dict[str, Any]:
        return {
            "model": self.deployment.model.model_dump(),
            "handle": self.deployment.handle,
            "pid": self.process.pid if self.process else None,
            "port": self.process.port if self.process else None,
            "ready": self.ready,
            "restarts": self.restarts,
            "failure": self.failure,
        }

    def _watch_for_hanging(self) -> None:
        if self._check is not None:
            self._check.cancel()
        if self.process is not None:
            self._check = asyncio.get_running_loop().call_later(TAKING_SECONDS, _end_if_hanging, self.process)

    async def _run(self) -> None:
        attempt = 0
        try:
            while True:
                started = asyncio.get_running_loop().time()
                await self._run_once()
                if not self.keep:
                    return
                lived = asyncio.get_running_loop().time() - started
                attempt = 0 if lived > STABLE_SECONDS else min(attempt + 1, len(BACKOFF) - 1)
                self.restarts += 1
                await asyncio.sleep(BACKOFF[attempt])
        finally:
            if not self._first.done():
                self._first.set_result(False)

    async def _run_once(self) -> None:
        process = await ScoringProcess.start(self._config(self.deployment), self._log_file)
        process.on_room = lambda: self._on_change([])
        self.process = process
        ready = await process.wait_ready()
        if ready:
            self.failure = ""
            self._serving.set()
            if self._retired:
                process.command("retire")
            self._on_change([])
        else:
            self.failure = process.failure
        if not self._first.done():
            self.exit_code = process.exit_code
            self._first.set_result(ready)
        code = await process.wait() if ready else await self._bury(process)
        self._serving.clear()
        self.failure = self.failure or f"Its process ended with exit code {code}."
        if self.keep:
            log.error("%s: %s It is started again.", self.deployment.label, self.failure)
        self._on_change(process.reclaim())

    async def _bury(self, process: ScoringProcess) -> int:
        await process.stop()
        return process.exit_code or 0


def _end_if_hanging(process: ScoringProcess) -> None:
    if not process.took_all:
        process.kill()
