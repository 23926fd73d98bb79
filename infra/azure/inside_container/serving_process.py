"""The scoring process inside its container: it listens by itself, is commanded on stdin, and logs for the container."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from pydantic import SecretStr

from infra.settings import PROJECT
from infra.version import platform

STOP_SECONDS: Final = 9.0
"""It gives its open requests 8 s to end; a container has 10 s or more before it is killed."""
KILLED: Final = 128
"""What a shell adds to the number of the signal that ended a process."""


class ServingProcess:
    """A running `python -m model.serving --supervised`; it ends with this process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, config: dict[str, Any], keys: Sequence[SecretStr]) -> "ServingProcess":
        """Start it; `config` and `keys` are the JSON form of `model.serving.config.ServingConfig`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "model.serving",
            "--supervised",
            stdin=asyncio.subprocess.PIPE,
            # What happens is in its log lines on stderr too, which is the container's.
            stdout=asyncio.subprocess.DEVNULL,
            cwd=PROJECT,
        )
        started = cls(process)
        started._send({"platform": platform(), **config, "keys": _plain(keys)})
        return started

    @property
    def pid(self) -> int:
        return self._process.pid

    def accept(self, keys: Sequence[SecretStr]) -> None:
        """From now on these keys are valid, and no others; no request is lost."""
        self._send({"do": "keys", "keys": _plain(keys)})

    async def wait(self) -> int:
        """Its exit code, as a shell tells it."""
        code = await self._process.wait()
        return KILLED - code if code < 0 else code

    async def drain(self) -> int:
        """Let it answer what it has begun, and end; where that takes too long, it is killed. Answers its exit code."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            return await asyncio.wait_for(self.wait(), STOP_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            return await self.wait()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):  # it has ended, which `wait` tells
            self._process.stdin.write(json.dumps(message).encode() + b"\n")


def _plain(keys: Sequence[SecretStr]) -> list[str]:
    return [key.get_secret_value() for key in keys]
