"""How a supervisor is told what to do: one JSON line each way over a Unix socket that only this user can open."""

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import infra.errors
from infra.errors import EndpointUnreachable, PlatformError

MAX_LINE: Final = 1024 * 1024

Command = Callable[..., Awaitable[dict[str, Any]]]

log = logging.getLogger("supervisor")


class ControlServer:
    """The supervisor's end; errors of the platform go back to the caller by name."""

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
            details = {"process_exit_code": getattr(error, "process_exit_code", None)}
            return {"ok": False, "error": type(error).__name__, "message": str(error), **details}
        except Exception as error:
            log.exception("The command %s failed.", name)
            return {"ok": False, "error": "PlatformError", "message": f"The supervisor failed: {error!r}."}


def ask(path: Path | None, command: str, *, seconds: float, **arguments: Any) -> dict[str, Any]:
    """Send one command and wait for its answer.

    Raises:
        EndpointUnreachable: No supervisor answers there in time.
        PlatformError: What the supervisor raised, as the class of that name.
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
        raise rebuilt(answer)
    return answer


def rebuilt(answer: Mapping[str, Any]) -> PlatformError:
    """The error that another process reported by the name of its class."""
    kind = getattr(infra.errors, str(answer.get("error")), PlatformError)
    message = str(answer.get("message"))
    if kind is infra.errors.CandidateFailed:
        return infra.errors.CandidateFailed(message, process_exit_code=answer.get("process_exit_code"))
    error: PlatformError = kind(message)
    return error
