"""The commands to a supervisor: one JSON line each way over a Unix socket that only this user can open."""

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from infra.errors import EndpointUnreachable, PlatformError
from model.faults import Fault

MAX_LINE: Final = 1024 * 1024

Command = Callable[..., Awaitable[dict[str, Any]]]

log = logging.getLogger("supervisor")


class ControlServer:
    """The supervisor's end; errors of the platform go back to the caller as records."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, path=self._path, limit=MAX_LINE)
        finally:
            os.umask(mask)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            if line := await reader.readline():
                writer.write(json.dumps(await self._answer(json.loads(line))).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request.pop("command")
        try:
            if name in {"status", "stop"}:
                return {"ok": True, **await self._commands[name](**request)}
            async with self._one_at_a_time:
                return {"ok": True, **await self._commands[name](**request)}
        except PlatformError as error:
            return refusal(error)
        except Exception as error:
            log.exception("The command %s failed.", name)
            return refusal(PlatformError(f"The supervisor failed: {error!r}."))


def ask(path: Path | None, command: str, *, seconds: float, **arguments: Any) -> dict[str, Any]:
    """Send one command and wait for its answer.

    Raises:
        EndpointUnreachable: No supervisor answers there in time.
        PlatformError: What the supervisor raised.
    """
    if path is None:
        raise EndpointUnreachable("No supervisor runs.")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(seconds)
            connection.connect(os.fspath(path))
            connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
    except OSError as error:
        raise EndpointUnreachable(f"The supervisor at {path} doesn't answer `{command}`: {error}.") from error
    if not line:
        raise EndpointUnreachable(f"The supervisor at {path} ended while it worked on `{command}`.")
    answer: dict[str, Any] = json.loads(line)
    if not answer.pop("ok"):
        raise error_in(answer)
    return answer


def refusal(error: PlatformError) -> dict[str, Any]:
    """The answer of a process of the supervisor that raised this error."""
    return {"ok": False, "fault": Fault.of(error).model_dump(mode="json")}


def error_in(answer: Mapping[str, Any]) -> Exception:
    """The error in such an answer."""
    if "fault" in answer:
        return Fault.model_validate(answer["fault"]).error()
    # A supervisor outlives an upgrade: one that was started before faults were records answers these three.
    details = {"process_exit_code": answer.get("process_exit_code")}
    return Fault(name=answer["error"], message=answer["message"], details=details).error()
