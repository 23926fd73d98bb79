"""The one long-lived process of an environment's endpoint: it owns the port and hands each connection to a version.

It accepts connections and passes them on whole (SCM_RIGHTS), so no byte goes through it, a switch is one assignment,
and while a scoring process is started again, connections wait in the port's queue instead of being refused.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from infra.errors import CandidateFailed, ConfigurationError, NothingToRollBackTo
from infra.local.endpoint.control_socket import ControlServer
from infra.local.endpoint.listener import Listener
from infra.local.endpoint.log_file import keep_short
from infra.local.endpoint.state import Deployment, EndpointFiles, EndpointState, SupervisorConfig
from infra.local.endpoint.version_runner import VersionRunner
from infra.ports import LiveModel
from infra.version import platform
from model.serving.config import ServingConfig

WARM_SECONDS: Final = 60.0

log = logging.getLogger("supervisor")


class Supervisor:
    """The versions of one environment: `live` takes new connections, `previous` is warm, `candidate` on trial."""

    def __init__(self, config: SupervisorConfig, files: EndpointFiles, port: socket.socket) -> None:
        self._config = config
        self._files = files
        self._listener = Listener(port)
        self._keys = config.keys
        self._live: VersionRunner | None = None
        self._previous: VersionRunner | None = None
        self._candidate: VersionRunner | None = None
        self._lost_candidate: Deployment | None = None
        self._draining: set[VersionRunner] = set()
        self._restoring: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def run(self, control: Path, on_ready: Callable[[], None]) -> None:
        """Serve the versions of the state file until `stop`; `on_ready` is called once commands are taken."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._ended.set)
        server = ControlServer(
            control,
            {
                "status": self._status,
                "await_live": self._await_live,
                "keys": self._replace_keys,
                "deploy": self._deploy,
                "split": self._split,
                "switch": self._switch,
                "discard": self._discard,
                "rollback": self._rollback,
                "stop": self._stop,
            },
        )
        await server.start()
        self._restore()
        self._later(keep_short(self._files.log))
        on_ready()
        try:
            await self._ended.wait()
        finally:
            self._listener.close()
            await asyncio.gather(*(version.stop() for version in (*self._versions(), *self._draining)))
            for task in self._background:
                task.cancel()
            await server.close()

    # Commands.

    async def _status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "live": self._live.describe() if self._live else None,
            "previous": self._previous.describe() if self._previous else None,
            "candidate": self._candidate.describe() if self._candidate else None,
            "share": self._listener.share,
        }

    async def _await_live(self) -> dict[str, Any]:
        if self._live is not None and await self._live.first_start():
            await self._live.wait_ready(WARM_SECONDS)
        return await self._status()

    async def _replace_keys(self, keys: list[str]) -> dict[str, Any]:
        self._keys = tuple(map(SecretStr, keys))
        for version in (*self._versions(), *self._draining):
            version.replace_keys(self._keys)
        return {}

    async def _deploy(self, model: dict[str, Any], handle: str, correlation_id: str = "") -> dict[str, Any]:
        await self._await_restored()
        self._drop_candidate()
        deployment = Deployment(model=LiveModel.model_validate(model), handle=handle, correlation_id=correlation_id)
        candidate = self._run(deployment, keep_running=False)
        if not await candidate.first_start():
            await candidate.stop()
            self._write_state()
            self._end_if_unused()
            raise CandidateFailed(
                f"The scoring process of {deployment.label} for "
                f"{self._config.environment} ended before it was ready. {candidate.failure}",
                process_exit_code=candidate.exit_code,
            )
        self._candidate = candidate
        candidate.keep_running = True
        self._write_state()
        assert candidate.process is not None
        return {"port": candidate.process.port}

    async def _split(self, handle: str, share: float) -> dict[str, Any]:
        await self._await_restored()
        candidate = self._candidate_of(handle)
        if not share:
            self._listener.split(None)
            candidate.retire()
            return {}
        if self._live is None:
            raise ConfigurationError(f"{self._config.environment} has no live version to share its traffic with.")
        await _ready(candidate, "The candidate")
        candidate.resume()
        self._listener.split(candidate, share)
        log.info("%s takes %g %% of new connections.", candidate.deployment.label, share * 100)
        return {}

    async def _switch(self, handle: str) -> dict[str, Any]:
        if self._live is not None and self._live.deployment.handle == handle:
            return {"model": self._live.deployment.model.model_dump()}
        await self._await_restored()
        candidate = self._candidate_of(handle)
        await _ready(candidate, "The candidate")
        retired, self._previous = self._previous, self._live
        self._live, self._candidate = candidate, None
        self._write_state()
        self._take_over(self._live, self._previous)
        if retired is not None:
            self._retire(retired)
        return {"model": candidate.deployment.model.model_dump()}

    async def _discard(self, handle: str) -> dict[str, Any]:
        if self._candidate is not None and self._candidate.deployment.handle == handle:
            self._drop_candidate()
            self._write_state()
            self._end_if_unused()
        return {}

    async def _rollback(self) -> dict[str, Any]:
        await self._await_restored()
        if self._live is None or self._previous is None:
            raise NothingToRollBackTo(f"The endpoint {self._config.environment} has no earlier version.")
        back = self._previous
        await _ready(back, "The previous version")
        self._live, self._previous = back, self._live
        self._write_state()
        self._take_over(self._live, self._previous)
        return {"model": back.deployment.model.model_dump()}

    async def _stop(self) -> dict[str, Any]:
        self._loop.call_later(0.05, self._ended.set)  # after this answer
        return {}

    # Versions.

    def _restore(self) -> None:
        state = self._files.read_state()
        self._lost_candidate = state.candidate
        if state.live is None:
            return
        self._live = self._run(state.live)
        self._listener.serve(self._live)
        if state.previous is not None:
            self._restoring = self._later(self._restore_previous(self._live, state.previous))

    async def _restore_previous(self, live: VersionRunner, deployment: Deployment) -> None:
        await live.first_start()  # the live one has the machine for itself until it answers
        self._previous = self._run(deployment)
        self._previous.retire()

    async def _await_restored(self) -> None:
        if self._restoring is not None:
            await self._restoring

    def _retire(self, version: VersionRunner) -> None:
        self._draining.add(version)
        self._later(self._drain(version))

    async def _drain(self, version: VersionRunner) -> None:
        await version.drain()
        self._draining.discard(version)

    def _candidate_of(self, handle: str) -> VersionRunner:
        """The candidate of this handle; started again where the supervisor itself was killed in between."""
        if self._candidate is not None and self._candidate.deployment.handle == handle:
            return self._candidate
        if self._candidate is None and self._lost_candidate is not None and self._lost_candidate.handle == handle:
            self._candidate = self._run(self._lost_candidate)
            self._lost_candidate = None
            return self._candidate
        raise CandidateFailed(
            f"The candidate {handle} of {self._config.environment} is gone: another one took its place.",
            process_exit_code=None,
        )

    def _take_over(self, live: VersionRunner, previous: VersionRunner | None) -> None:
        live.keep_running = True
        live.resume()
        if previous is not None:
            previous.retire()
        self._listener.serve(live)
        log.info("%s is live; before: %s.", live.deployment.label, previous.deployment.label if previous else None)

    def _run(self, deployment: Deployment, *, keep_running: bool = True) -> VersionRunner:
        files, listener = self._files, self._listener
        return VersionRunner(deployment, self._serving_config, files.log, listener.resume, keep_running=keep_running)

    def _drop_candidate(self) -> None:
        candidate, self._candidate, self._lost_candidate = self._candidate, None, None
        if candidate is not None:
            self._listener.split(None)
            self._retire(candidate)

    def _versions(self) -> list[VersionRunner]:
        return [version for version in (self._live, self._previous, self._candidate) if version is not None]

    def _write_state(self) -> None:
        """Before anything changes for clients, so that a restart never serves less than was answered."""
        state = EndpointState(
            live=self._live.deployment if self._live else None,
            previous=self._previous.deployment if self._previous else None,
            candidate=self._candidate.deployment if self._candidate else self._lost_candidate,
        )
        self._files.write_state(state)
        self._files.remove_bundles(keep=state.handles)

    def _end_if_unused(self) -> None:
        if not self._versions():
            self._loop.call_later(0.05, self._ended.set)

    def _serving_config(self, deployment: Deployment) -> ServingConfig:
        return ServingConfig(
            bundle=self._files.bundle(deployment.handle),
            digest=deployment.model.digest,
            name=deployment.model.name,
            version=deployment.model.version,
            keys=self._keys,
            threads=self._config.threads,
            environment=self._config.environment,
            platform=platform(),
            correlation_id=deployment.correlation_id,
            spool=self._config.spool,
            sample_rate=self._config.sample_rate,
            sample_images=self._config.sample_images,
        )

    def _later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


async def _ready(version: VersionRunner, what: str) -> None:
    """Raises: CandidateFailed where it doesn't get ready, restarts included."""
    if not await version.wait_ready(WARM_SECONDS):
        raise CandidateFailed(
            f"{what} {version.deployment.label} is not ready: {version.failure}", process_exit_code=version.exit_code
        )
