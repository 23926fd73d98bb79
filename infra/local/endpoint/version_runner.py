"""Keeps a model version running: its process is started again after ever longer pauses, whenever it ends."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from infra.local.endpoint.handover_process import HandoverProcess
from infra.local.endpoint.state import Deployment
from model.serving.config import ServingConfig

BACKOFF: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
STABLE_SECONDS: Final = 30.0
DRAIN_SECONDS: Final = 120.0
TAKING_SECONDS: Final = 5.0
"""A process that has not taken a connection for so long hangs."""

log = logging.getLogger("supervisor")


class VersionRunner:
    """One deployment and the process that serves it now.

    Args:
        deployment: What it serves.
        config: Its serving config; asked for at each start.
        on_change: Called when it became ready or ended, with the connections that it never took.
        keep_running: Whether its process is started again when it ends.
    """

    def __init__(
        self,
        deployment: Deployment,
        config: Callable[[Deployment], ServingConfig],
        log_file: Path,
        on_change: Callable[[list[socket.socket]], None],
        *,
        keep_running: bool,
    ) -> None:
        self.deployment = deployment
        self.restarts = 0
        self.keep_running = keep_running
        self.process: HandoverProcess | None = None
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
        """Close each connection with its next answer; connections that it doesn't take go to another version."""
        self._retired = True
        self._command("retire")
        self._watch_for_hanging()

    def resume(self) -> None:
        self._retired = False
        if self._check is not None:
            self._check.cancel()
        self._command("resume")

    def replace_keys(self, keys: Sequence[SecretStr]) -> None:
        if self.process is not None:
            self.process.replace_keys(keys)

    async def drain(self) -> None:
        """End it when its last connection is closed."""
        self.keep_running = False
        self.retire()
        self._command("drain")
        done, _ = await asyncio.wait({self._task}, timeout=DRAIN_SECONDS)
        if not done:
            await self.stop()

    async def stop(self) -> None:
        self.keep_running = False
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

    def _command(self, do: str) -> None:
        if self.process is not None:
            self.process.command(do)

    def _watch_for_hanging(self) -> None:
        if self._check is not None:
            self._check.cancel()
        if self.process is not None:
            self._check = asyncio.get_running_loop().call_later(TAKING_SECONDS, self.process.kill_if_hanging)

    async def _run(self) -> None:
        attempt = 0
        try:
            while True:
                start = asyncio.get_running_loop().time()
                await self._run_once()
                if not self.keep_running:
                    return
                seconds = asyncio.get_running_loop().time() - start
                attempt = 0 if seconds > STABLE_SECONDS else min(attempt + 1, len(BACKOFF) - 1)
                self.restarts += 1
                await asyncio.sleep(BACKOFF[attempt])
        finally:
            if not self._first.done():
                self._first.set_result(False)

    async def _run_once(self) -> None:
        process = await HandoverProcess.start(self._config(self.deployment), self._log_file)
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
        code = await process.wait() if ready else await process.stop()
        self._serving.clear()
        self.failure = self.failure or f"Its process ended with exit code {code}."
        if self.keep_running:
            log.error("%s: %s It is started again.", self.deployment.label, self.failure)
        self._on_change(process.reclaim())
