"""The server of one scoring process: from its config to its orderly end."""

import asyncio
import contextlib
import json
import logging
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import uvicorn
import uvloop
from pydantic import SecretStr

from model.bundle.read import open_bundle
from model.errors import ModelError
from model.faults import Fault
from model.serving.certificate import Certificate
from model.serving.config import ServingConfig
from model.serving.handover import Handover
from model.serving.http.app import create_app
from model.serving.http.protocol import ScoringProtocol
from model.serving.observe.logs import log_as_json
from model.serving.service import ScoringService

EXIT_CANNOT_LISTEN: Final = 21
SPARE_DESCRIPTORS: Final = 64
STOP_SECONDS: Final = 8
MAX_DESCRIPTORS: Final = 65536

log = logging.getLogger("serving")


class ScoringServer(uvicorn.Server):
    """uvicorn's server, which also receives connections and commands from its supervisor."""

    def __init__(self, service: ScoringService, certificate: Certificate | None) -> None:
        config = service.config
        super().__init__(
            uvicorn.Config(
                create_app(service),
                http=partial(ScoringProtocol, header_seconds=config.upload_seconds),  # type: ignore[arg-type]
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=config.keep_alive_seconds,
                timeout_graceful_shutdown=STOP_SECONDS,
                ssl_context_factory=(lambda _, __: certificate.context) if certificate else None,
            )
        )
        self._service = service
        self._certificate = certificate
        self._handover: Handover | None = None
        self.listening = asyncio.Event()
        self.model_fields = service.model.model_dump()
        self._max_connections = _raise_descriptor_limit() - SPARE_DESCRIPTORS

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        descriptor = self._service.config.handover_fd
        if descriptor is not None:
            self._handover = Handover(socket.socket(fileno=descriptor), self._new_protocol, self._has_room)
        if self._certificate is not None:
            self._renewals = asyncio.create_task(self._certificate.follow())
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.draining = True
        if self._handover is not None:
            self._handover.close()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._drained()

    def execute(self, command: dict[str, Any]) -> None:
        """Execute a command of the supervisor: `retire`, `resume`, `drain` or `keys`."""
        match command["do"]:
            case "retire":
                self._service.retired = True
            case "resume":
                self._service.retired = False
            case "drain":
                self._service.retired = True
                self._service.draining = True
            case "keys":
                self._service.keys.replace(SecretStr(key) for key in command["keys"])
            case other:
                log.error("Unknown command %r.", other)

    def stop(self) -> None:
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end the service in good order; that is no failure, so the exit code is 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        yield

    def _drained(self) -> bool:
        pending = self._handover.pending if self._handover else 0
        return self._service.draining and not self.server_state.connections and not pending

    def _has_room(self) -> bool:
        return len(self.server_state.connections) < self._max_connections

    def _new_protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state={}
        )


def serve(config: ServingConfig, *, supervised: bool = False) -> int:
    """Serve until SIGTERM or, where supervised, until stdin ends; answers the exit code.

    A bundle that can't be served ends it with the exit code of its error and one line of log.
    """
    log_as_json(config.log_level)
    try:
        certificate = Certificate(config.certificate) if config.certificate else None
        service = ScoringService(open_bundle(config.bundle, digest=config.digest), config)
        listener = _listen(config)
    except ModelError as error:
        return _give_up(Fault.of(error), supervised=supervised)
    except OSError as error:
        message = f"Can't listen on {config.host}:{config.port}: {error.strerror}."
        fault = Fault(name="PortInUse", message=message, next_step="Choose another port.", exit_code=EXIT_CANNOT_LISTEN)
        return _give_up(fault, supervised=supervised)
    server = ScoringServer(service, certificate)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(server, listener, supervised=supervised))
    service.close()
    return 0


async def _run(server: ScoringServer, listener: socket.socket, *, supervised: bool) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    if supervised:
        commands = asyncio.create_task(_follow(server))
        commands.add_done_callback(lambda _: server.stop())
    await server.listening.wait()
    port = listener.getsockname()[1]
    log.info("Listening.", extra={"fields": {"port": port, **server.model_fields}})
    if supervised:
        _report({"event": "ready", "port": port})
    await serving


async def _follow(server: ScoringServer) -> None:
    """Read commands from stdin until the supervisor closes it or dies."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        server.execute(json.loads(line))


def _listen(config: ServingConfig) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _raise_descriptor_limit() -> int:
    """As many open connections as the system allows this user; answers the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY:
        return limit
    if soft < limit:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (OSError, ValueError):  # macOS allows less than it says
            return soft
    return max(soft, limit)


def _give_up(fault: Fault, *, supervised: bool) -> int:
    log.error(fault.message, extra={"fields": fault.log_fields})
    if supervised:
        _report({"event": "failed", "error": fault.name, "message": fault.message})
    return fault.exit_code


def _report(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)
