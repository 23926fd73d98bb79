"""The scoring endpoint of one environment on this machine: real processes behind one port."""

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from infra.config.environments import Environment, endpoint_key
from infra.errors import AccessDenied, EndpointUnreachable, NothingToRollBackTo, PlatformError
from infra.local.endpoint.control_socket import ask, error_in, refusal
from infra.local.endpoint.log_file import tail
from infra.local.endpoint.state import EndpointFiles, SupervisorConfig
from infra.local.machine_checks import check_disk, check_memory, check_port
from infra.ports import Candidate, EndpointStatus, LiveModel, RunningVersion, SecretStore
from infra.releases.sampled_images import INCOMING
from infra.releases.scoring_client import ScoringClient
from infra.runs.correlation import correlation_id
from infra.settings import PROJECT, Settings
from infra.waiting import polls

QUICK_SECONDS: Final = 3.0
VERSION_MEMORY: Final = 512 * 1024**2
"""A scoring process takes about 220 MB; its bundle is read once more while it starts."""
START_SECONDS: Final = 150.0
STOP_SECONDS: Final = 30.0


class LocalEndpoint:
    """`infra.ports.Endpoint` for one machine.

    A supervisor process of its own session owns the port and the scoring processes, so they outlive whoever started
    them; this object only talks to it. Any number of them, in any processes, may speak for one environment.
    """

    def __init__(self, environment: Environment, settings: Settings, secrets: SecretStore) -> None:
        self._environment = environment
        self._settings = settings
        self._host = settings.host
        self._port = settings.endpoint_base_port + environment.port_offset
        self._secrets = secrets
        # The store of records itself: on one machine nothing has to be shipped.
        self._spool = settings.home / "lake" / INCOMING
        self._files = EndpointFiles(settings.path("endpoints", environment.name))

    @property
    def environment(self) -> str:
        return self._environment.name

    @property
    def url(self) -> str:
        return f"http://{self._reachable_host}:{self._port}"

    def status(self) -> EndpointStatus:
        try:
            facts = self._ask("status", seconds=QUICK_SECONDS)
        except EndpointUnreachable as error:
            return self._status("stopped", detail=str(error))
        if facts["live"] is None:
            return self._status("stopped", detail="No version was switched to yet.")
        # At the port of the environment a candidate that has a share of the connections may answer.
        divided = facts.get("share") and facts["live"]["ready"]
        url = _own_url(facts["live"]["port"]) if divided else self.url
        try:
            with ScoringClient(url, self._keys()[0], seconds=QUICK_SECONDS) as client:
                live = client.model()
        except (EndpointUnreachable, AccessDenied) as error:
            return self._status("unhealthy", facts=facts, detail=f"{error} {_failure(facts)}".strip())
        except PlatformError as error:
            return self._status("unhealthy", facts=facts, detail=f"Another program answers: {error}")
        return self._status("running", facts=facts, live=live)

    def deploy(self, bundle: Path, model: LiveModel) -> Candidate:
        handle = f"{model.digest[:12]}-{uuid.uuid4().hex[:8]}"
        with self._files.locked():
            self._files.store_bundle(bundle, handle)
            self._ensure_supervisor()
            answer = self._ask(
                "deploy",
                seconds=START_SECONDS,
                model=model.model_dump(),
                handle=handle,
                correlation_id=correlation_id(),
            )
        return Candidate(
            environment=self.environment,
            model=model,
            url=_own_url(answer["port"]),
            handle=handle,
        )

    def switch(self, candidate: Candidate) -> LiveModel:
        with self._files.locked():
            self._ensure_supervisor()
            return LiveModel(**self._ask("switch", seconds=START_SECONDS, handle=candidate.handle)["model"])

    def discard(self, candidate: Candidate) -> None:
        with self._files.locked():
            if self._files.supervisor_pid() is not None:
                self._ask("discard", seconds=START_SECONDS, handle=candidate.handle)

    def versions(self) -> Sequence[RunningVersion]:
        if self._files.supervisor_pid() is None:
            return ()
        facts = self._ask("status", seconds=QUICK_SECONDS)
        return tuple(
            RunningVersion.model_validate(
                {"role": role, "model": facts[role]["model"], "url": _own_url(facts[role]["port"])}
            )
            for role in ("live", "previous", "candidate")
            if facts[role] is not None and facts[role]["ready"]
        )

    def split(self, candidate: Candidate, share: float) -> None:
        with self._files.locked():
            if not share and self._files.supervisor_pid() is None:
                return  # the candidate ended with the supervisor
            self._ensure_supervisor()
            self._ask("split", seconds=START_SECONDS, handle=candidate.handle, share=share)

    def preflight(self) -> Sequence[str]:
        findings = [check_disk(self._files.directory), check_memory(VERSION_MEMORY, "Close other programs.")]
        if self._files.supervisor_pid() is None:
            findings.append(check_port(self._settings, self.environment, self._port, "AHC_ENDPOINT_BASE_PORT"))
        return [finding.sentence for finding in findings if finding.blocks]

    def rollback(self) -> LiveModel:
        with self._files.locked():
            state = self._files.read_state()
            if state.live is None or state.previous is None:
                raise NothingToRollBackTo(f"The endpoint {self.environment} has no earlier version.")
            self._ensure_supervisor()
            return LiveModel(**self._ask("rollback", seconds=START_SECONDS)["model"])

    def logs(self, lines: int = 50) -> Sequence[str]:
        return tail(self._files.log, lines)

    def stop(self) -> None:
        with self._files.locked():
            pid = self._files.supervisor_pid()
            if pid is None:
                return
            try:
                self._ask("stop", seconds=QUICK_SECONDS)
            except EndpointUnreachable:
                os.kill(pid, signal.SIGTERM)
            if not self._has_ended():
                # Its scoring processes end by themselves with it.
                os.kill(pid, signal.SIGKILL)
                self._has_ended()

    def start(self) -> EndpointStatus:
        with self._files.locked():
            if self._files.read_state().live is None:
                return self.status()
            self._ensure_supervisor()
            self._ask("await_live", seconds=START_SECONDS)
        return self.status()

    def refresh_keys(self) -> None:
        """Make the keys of the secret store the valid ones, at once and without a restart."""
        with self._files.locked():
            if self._files.supervisor_pid() is not None:
                self._send_keys()

    @property
    def _reachable_host(self) -> str:
        return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._host, self._host)  # noqa: S104

    def _status(
        self, state: Any, *, facts: dict[str, Any] | None = None, live: LiveModel | None = None, detail: str = ""
    ) -> EndpointStatus:
        previous = (facts or {}).get("previous")
        return EndpointStatus(
            environment=self.environment,
            url=self.url,
            state=state,
            live=live,
            previous=LiveModel(**previous["model"]) if previous else None,
            detail=detail,
        )

    def _keys(self) -> tuple[SecretStr, SecretStr]:
        primary, secondary = endpoint_key(self.environment), endpoint_key(self.environment, "secondary")
        return self._secrets.ensure(primary), self._secrets.ensure(secondary)

    def _ask(self, command: str, *, seconds: float, **arguments: Any) -> dict[str, Any]:
        return ask(self._files.control_socket(), command, seconds=seconds, **arguments)

    def _send_keys(self) -> None:
        self._ask("keys", seconds=QUICK_SECONDS, keys=[key.get_secret_value() for key in self._keys()])

    def _ensure_supervisor(self) -> None:
        if self._files.supervisor_pid() is not None:
            self._send_keys()
            return
        config = SupervisorConfig(
            environment=self.environment,
            host=self._host,
            port=self._port,
            directory=self._files.directory,
            threads=self._environment.scoring_threads,
            spool=self._spool,
            sample_rate=self._environment.sample_rate,
            sample_images=self._environment.sample_images,
            keys=self._keys(),
        )
        with self._files.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "infra.local.endpoint.supervisor_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                cwd=PROJECT,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            process.stdin.write(config.to_json().encode())
            process.stdin.close()
            line = process.stdout.readline()
        answer = json.loads(line) if line else refusal(PlatformError("The supervisor ended at once; see the log."))
        if not answer["ok"]:
            # Until it has ended it would be taken for one that runs.
            process.wait(STOP_SECONDS)
            raise error_in(answer)
        # It may end while this process lives: somebody has to take its exit code.
        threading.Thread(target=process.wait, daemon=True, name=f"reap-{process.pid}").start()

    def _has_ended(self) -> bool:
        return any(self._files.supervisor_pid() is None for _ in polls(STOP_SECONDS, pause=0.02))


def _own_url(port: int) -> str:
    """Where one scoring process alone answers."""
    return f"http://127.0.0.1:{port}"


def _failure(facts: dict[str, Any]) -> str:
    live = facts.get("live")
    return str(live["failure"]) if live and live["failure"] else ""
