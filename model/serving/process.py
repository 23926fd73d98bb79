"""A scoring process seen by its parent: config and commands go to its stdin, events come from its stdout."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

from pydantic import SecretStr

from model.serving.config import ServingConfig

PROJECT: Final = Path(__file__).resolve().parents[2]
STOP_SECONDS: Final = 9.0
"""It gives its open requests 8 s to end; a container has 10 s or more before it is killed."""


class ScoringProcess:
    """A running `python -m model.serving --supervised`; it ends with its parent."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative where a signal ended it."""
        return self._process.returncode

    def command(self, do: str, **arguments: Any) -> None:
        """Send a command of `ScoringServer.execute`; one that has ended takes none."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")

    def replace_keys(self, keys: Sequence[SecretStr]) -> None:
        """From now on these keys are valid, and no others; no request is lost."""
        self.command("keys", keys=[key.get_secret_value() for key in keys])

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        return await self._process.wait()

    async def stop(self) -> int:
        """End it: it answers its open requests; where that takes too long, it is killed. Answers its exit code."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
            except TimeoutError:
                self.kill()
        return await self.wait()

    def kill(self) -> None:
        """End it at once, with its open requests."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


async def spawn(
    config: ServingConfig, *, log: IO[bytes] | None = None, events: bool = False
) -> asyncio.subprocess.Process:
    """Start a scoring process.

    Args:
        config: Its configuration; `handover_fd` is inherited by it.
        log: File of its log; the stderr of this process where it is missing.
        events: Whether its stdout is a pipe to this process.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "model.serving",
        "--supervised",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE if events else asyncio.subprocess.DEVNULL,
        stderr=log,
        pass_fds=() if config.handover_fd is None else (config.handover_fd,),
        cwd=PROJECT,
    )
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError, RuntimeError):
        process.stdin.write(config.to_json().encode() + b"\n")
    return process
