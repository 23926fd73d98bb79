"""A rehearsal of releases under constant load, on this machine: `python -m tests.e2e.rehearsal [FOLDER]`.

A platform of its own (Prefect server, worker, endpoints) gets small model versions, good and bad ones, while clients
score without a pause in `test` and `production`. Each scene says what happened; at the end stands what the clients saw.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from uuid import UUID

from tests.conftest import environment_restored, free_ports
from tests.e2e.conftest import AHC
from tests.support import browser
from tests.support.bundles import colour_image, make_bundle
from tests.support.load import Load
from tests.support.local_endpoint import stop_endpoints

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

NAME: Final = "colours"
IMAGES: Final = ("red", "green", "blue", "white")
PATIENCE: Final = 180.0
PAUSE: Final = 0.05
"""Seconds between two requests of each of the ten clients: the machine has other things to do as well."""
STAGES: Final = ("check", "preflight", "deploy", "smoke test", "shadow", "canary", "switch", "watch")
"""How the runs of the steps of a release to `test` begin; after each, its process is killed."""
ENVIRONMENTS: Final = {
    "test": """
name: test
description: Every step of a release, but no person.
port_offset: 1
scoring_threads: 1
sample_rate: 1
sample_images: 20
gates:
  latency_p95_ms: 500
  shadow: {images: 12, min_agreement: 0.6}
  canary: {share: 0.5, seconds: 12, min_requests: 10, max_drift: 0.2}
  watch: {seconds: 3, min_requests: 10, max_drift: 0.5}
""",
    "production": """
name: production
description: A person decides.
port_offset: 2
scoring_threads: 1
gates:
  automatic: false
  latency_p95_ms: 1000
  requires: test
  approval: true
  approvers: [Ada, Grace, Bob]
  four_eyes: true
""",
    "brief": """
name: brief
description: Nobody decides in time.
port_offset: 3
scoring_threads: 1
gates: {automatic: false, approval: true, approval_hours: 0.0006}
""",
}


@dataclass
class Scene:
    """What happened, and how long it took."""

    title: str
    outcome: str
    seconds: float
    as_expected: bool


@dataclass
class Report:
    """What a rehearsal showed."""

    scenes: list[Scene] = field(default_factory=list)
    clients: dict[str, Load] = field(default_factory=dict)

    @property
    def lost(self) -> list[str]:
        """Requests that failed, in words."""
        return [f"{name}: {failure}" for name, load in self.clients.items() for failure in load.failures]


class Rehearsal:
    """The platform that is rehearsed on.

    Args:
        folder: Empty; everything is kept below it.
        tell: Called with a line when something happened.
        pause: Seconds between two requests of a client.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None] = print, pause: float = PAUSE) -> None:
        self.report = Report()
        self._pause = pause
        self._folder = folder
        self._tell = tell
        self._versions = 0
        self._resources = ExitStack()
        environments = folder / "environments"
        environments.mkdir(parents=True)
        for name, text in ENVIRONMENTS.items():
            (environments / f"{name}.yaml").write_text(text)
        prefect, mlflow, self._endpoints, *_ = free_ports(8)
        self._variables = {
            "AHC_HOME": str(folder / "home"),
            "AHC_ENVIRONMENTS": str(environments),
            "AHC_PREFECT_PORT": str(prefect),
            "AHC_MLFLOW_PORT": str(mlflow),
            "AHC_ENDPOINT_BASE_PORT": str(self._endpoints),
        }

    def __enter__(self) -> Self:
        from infra.local.platform.platform import Platform
        from infra.local.platform.prefect_settings import prefect_environment
        from infra.settings import get_settings

        self._resources.enter_context(environment_restored())
        os.environ.update(self._variables)
        get_settings.cache_clear()
        self.settings = get_settings()
        os.environ.update(prefect_environment(self.settings))
        self.platform = self._resources.enter_context(Platform(self.settings, self._tell))
        self.platform.wait_until_ready()
        self._resources.callback(stop_endpoints, self.settings)
        self.ahc("deploy")
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def run(self) -> Report:
        """Play all scenes; those that don't end as they should say so in the report."""
        scene, one = self._scene, self.version()
        scene("v1 goes to test by itself, and to production by `ahc approve`", lambda: self._first(one))
        # Later, since a trigger takes the newest.
        two = self.version(bias=0.01)
        with self._clients("test", "production"):
            scene("v2 goes to test through shadow, canary and watch", lambda: self._released(two))
            scene("v2 goes to production by the form in a browser", lambda: self._approved_in_a_browser(two))
            scene("a release to production is rejected", self._rejected)
            scene("nobody decides in time", lambda: self._expired(two))
            scene("wrong golden answers are stopped before any traffic", self._wrong_answers)
            scene("a slow model is stopped by its latency gate", self._slow)
            scene("other answers to real images are stopped by the shadow", self._disagreeing)
            scene("another distribution of answers aborts the canary", self._drifting)
            scene("production is rolled back", lambda: self._rolled_back(one))
            for name in STAGES:
                scene(f"the process of a release is killed after: {name}", lambda name=name: self._killed_after(name))
            scene("three triggers at once start one release", self._triggered)
        scene("the chain of the ledger holds", lambda: self.ahc("ledger").stdout.strip().splitlines()[-1])
        return self.report

    # The scenes. Each answers what was seen.

    def _first(self, version: int) -> str:
        self.ahc("trigger", "reconciliation/local")
        self._eventually(lambda: self.live("test") == version, "v1 live in test")
        run = self._asked(version, "production")
        self.ahc("approve", str(run.id), "--by", "Bob", "--reason", "mine", code=30)
        self.ahc("approve", str(run.id), "--by", "Ada", "--reason", "seen on photos")
        self._ended(run.id, "Completed")
        assert self.live("production") == version
        return "Bob, who started it, was refused; Ada approved"

    def _released(self, version: int) -> str:
        self._ended(self._start_in_test(version).id, "Completed")
        return self._live_and_told(version)

    def _approved_in_a_browser(self, version: int) -> str:
        run = self._asked(version, "production")
        if browser.CHROMIUM is None:
            self.ahc("approve", str(run.id), "--by", "Grace", "--reason", "no browser here")
            how = "by `ahc approve`: no chromium here"
        else:
            picture = browser.approve(self.settings.prefect_ui_url, run.id, "Grace", "looks right", self._folder)
            how = f"picture: {picture}"
        self._ended(run.id, "Completed")
        assert self.live("production") == version
        return how

    def _rejected(self) -> str:
        version = self.version()
        self._ended(self._start_in_test(version).id, "Completed")
        before, run = self.live("production"), self._asked(version, "production")
        self.ahc("reject", str(run.id), "--by", "Ada", "--reason", "fish is worse")
        self._ended(run.id, "ReleaseRejected")
        assert self.live("production") == before
        held = self.ahc(*self._trigger(version, "production"), code=50)
        return f"and again without force: {_message(held)}"

    def _expired(self, version: int) -> str:
        run = self._asked(version, "brief")
        state = self._ended(run.id)
        refused = self.ahc("approve", str(run.id), "--by", "Ada", "--reason", "late", code=31)
        return f"{state}; approved then: {_message(refused)}"

    def _wrong_answers(self) -> str:
        return self._stopped(25, golden={"red": (0.9, 0.05, 0.05)})

    def _slow(self) -> str:
        return self._stopped(25, heavy=32)

    def _disagreeing(self) -> str:
        return self._stopped(47, bias=1e6)

    def _drifting(self) -> str:
        # Only what is white is called red instead of blue.
        return self._stopped(48, bias=-5.0)

    def _stopped(self, code: int, **bundle: Any) -> str:
        before, version = self.live("test"), self.version(**bundle)
        done = self.ahc(*self._trigger(version, "test"), code=code)
        assert self.live("test") == before
        return _message(done)

    def _rolled_back(self, version: int) -> str:
        from infra.backend import backend

        bad = self.live("production")
        began = time.monotonic()
        self.ahc("rollback", "production", "--reason", "rehearsed")
        seconds = time.monotonic() - began
        assert self.live("production") == version
        marked = backend(self.settings).registry().get(NAME, bad).tags["rolled_back.production"]
        assert marked == "rehearsed"
        return f"{seconds:.1f} s with the start of the command; v{bad} is marked as rolled back: {marked}"

    def _killed_after(self, stage: str) -> str:
        import psutil

        version = self.version()
        run = self._start_in_test(version)
        self._eventually(lambda: self._finished(run.id, stage), f"{stage} finished")
        killed = [
            process
            for process in psutil.process_iter()
            if "prefect.engine" in " ".join(_told(process.cmdline, []))
            and _told(process.environ, {}).get("PREFECT__FLOW_RUN_ID") == str(run.id)
        ]
        for process in killed:
            process.kill()
        self._ended(run.id, "Completed")
        return f"{len(killed)} process killed; run count {self._run(run.id).run_count}; {self._live_and_told(version)}"

    def _triggered(self) -> str:
        from prefect.events import emit_event

        version = self.version()
        running = [subprocess.Popen([AHC, "trigger", "reconciliation/local"], stdout=subprocess.DEVNULL) for _ in "12"]
        emit_event(
            event="ahc.model.registered",
            resource={
                "prefect.resource.id": f"ahc.model.{NAME}.{version}",
                "ahc.verdict": "promote",
                "ahc.goes-on": "false",
            },
            payload={"name": NAME, "version": version, "verdict": "promote"},
        )
        for process in running:
            assert process.wait(PATIENCE) == 0
        self._eventually(lambda: self.live("test") == version, f"v{version} live in test")
        self._eventually(lambda: not self._active(), "nothing under way")
        runs = self._runs(environment="test", version=version)
        assert len(runs) == 1, [run.name for run in runs]
        return f"one run; {self._live_and_told(version)}"

    # What they are made of.

    def _live_and_told(self, version: int) -> str:
        """What the ledger of `test` tells of a version that went live there, each step once."""
        assert self.live("test") == version
        kinds = [event.kind for event in self.events("test") if event.model.version == version]
        assert kinds == ["started", "switched", "settled"], kinds
        return f"ledger: {', '.join(kinds)}"

    def _scene(self, title: str, play: Callable[[], str]) -> None:
        began = time.monotonic()
        try:
            outcome, fine = play(), True
        except Exception as error:
            outcome, fine = f"{type(error).__name__}: {error}", False
        done = Scene(title, outcome, time.monotonic() - began, fine)
        self.report.scenes.append(done)
        self._tell(f"{'✓' if fine else '✗'} {title} ({done.seconds:.1f} s)\n    {outcome}")

    @contextmanager
    def _clients(self, *environments: str) -> Iterator[None]:
        from infra.backend import release_target
        from infra.config.environments import endpoint_key

        with ExitStack() as clients:
            for name in environments:
                key = release_target(name, self.settings).secrets().get(endpoint_key(name)).get_secret_value()
                port = self._endpoints + list(ENVIRONMENTS).index(name) + 1
                images = tuple(colour_image(image) for image in IMAGES)
                self.report.clients[name] = clients.enter_context(Load(port, key, images=images, pause=self._pause))
            yield

    def ahc(self, *arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run([AHC, *arguments], capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode != code:
            said = f"{done.stdout}{done.stderr}"
            raise AssertionError(f"ahc {' '.join(arguments)} ended with {done.returncode} instead of {code}:\n{said}")
        return done

    def version(self, **bundle: Any) -> int:
        """Register one more version, of bytes of its own; answers its number."""
        from infra.backend import backend

        self._versions += 1
        folder = self._folder / "bundles" / str(self._versions)
        ref = make_bundle(folder, code=f"version {self._versions}", **bundle)
        lineage = {"data_version": "0" * 16, "data_uri": "memory://", "code": f"version {self._versions}"}
        tags = {"verdict": "promote", "verdict_reason": "made for a rehearsal", "mlflow_run": "rehearsal", **lineage}
        return (
            backend(self.settings)
            .registry()
            .register(folder, name=NAME, digest=ref.digest, tags=tags, metrics={})
            .version
        )

    def live(self, environment: str) -> int:
        """The version that the endpoint itself reports; 0 where it runs none."""
        from infra.backend import release_target

        model = release_target(environment, self.settings).endpoint().status().live
        return model.version if model else 0

    def events(self, environment: str) -> list[Any]:
        from infra.backend import backend

        return backend(self.settings).ledger().events(environment)

    def _trigger(self, version: int, environment: str) -> list[str]:
        given = {"name": NAME, "version": version, "environment": environment, "by": "Bob"}
        pairs = [item for name, value in given.items() for item in ("-p", f"{name}={value}")]
        return ["trigger", f"release/{'test' if environment == 'brief' else environment}", *pairs]

    def _start(self, version: int, environment: str, *options: str) -> "FlowRun":
        self.ahc(*self._trigger(version, environment), "--no-wait", *options)
        return self._runs(environment=environment, version=version)[0]

    def _start_in_test(self, version: int) -> "FlowRun":
        """A reconciliation may find the version in the same second: by its key, both start one run."""
        return self._start(version, "test", "--idempotency-key", f"release-test-{NAME}-v{version}")

    def _asked(self, version: int, environment: str) -> "FlowRun":
        """A release that waits for a decision, with no process left."""
        run = self._start(version, environment)
        self._eventually(lambda: self._run(run.id).state.is_paused(), f"{run.name} waits")
        return run

    def _ended(self, run_id: UUID, name: str = "") -> "FlowRun":
        def over() -> bool:
            state = self._run(run_id).state
            # A crash is not the end: an automation starts the run again.
            return state.is_final() and not state.is_crashed()

        self._eventually(over, f"{run_id} ended")
        run = self._run(run_id)
        assert name in ("", run.state_name), f"{run.name} ended as {run.state_name}: {run.state.message}"
        return run

    def _finished(self, run_id: UUID, stage: str) -> bool:
        from deployments.runs.queries import steps
        from deployments.server.connection import server

        run = self._run(run_id)
        assert not run.state.is_final() or stage == STAGES[-1], f"{run.name} ended before {stage}: {run.state}"
        with server(self.settings) as client:
            found = steps(client, run_id)
        return any(step.name.startswith(f"{stage} ") and step.state_type == "COMPLETED" for step in found)

    def _run(self, run_id: UUID) -> Any:
        from deployments.server.connection import server

        with server(self.settings) as client:
            return client.read_flow_run(run_id)

    def _runs(self, **parameters: Any) -> "list[FlowRun]":
        """All runs with these parameters, newest first."""
        from deployments.runs.queries import recent_runs
        from deployments.server.connection import server

        with server(self.settings) as client:
            found = recent_runs(client, limit=200)
        return [run for run in found if parameters.items() <= run.parameters.items()]

    def _active(self) -> "list[FlowRun]":
        return [run for run in self._runs() if not (run.state.is_final() or run.state.is_paused())]

    def _eventually(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            self.platform.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {PATIENCE:g} s")
            time.sleep(0.1)


def _message(done: "subprocess.CompletedProcess[str]") -> str:
    """What a command that failed said of the cause."""
    found = re.search(r"\b[A-Z]\w+(Failed|Held|Aborted|Disagrees|Rejected): [^\n]*", f"{done.stderr}{done.stdout}")
    assert found, done.stdout + done.stderr
    return found.group()


def _told(ask: Callable[[], Any], otherwise: Any) -> Any:
    import psutil

    try:
        return ask()
    except psutil.Error:
        return otherwise


def show(report: Report) -> None:
    """What the clients saw."""
    for name, load in report.clients.items():
        versions = ", ".join(f"v{version} {count}" for version, count in sorted(load.by_version.items()))
        print(f"{name}: {load.answers} requests answered, {len(load.failures)} failed; by version: {versions}")
    for line in report.lost[:20]:
        print(f"  {line}")


def main() -> int:
    with ExitStack() as resources:
        given = sys.argv[1] if len(sys.argv) > 1 else resources.enter_context(tempfile.TemporaryDirectory())
        with Rehearsal(Path(given)) as rehearsal:
            report = rehearsal.run()
    show(report)
    return 0 if all(scene.as_expected for scene in report.scenes) and not report.lost else 1


if __name__ == "__main__":
    sys.exit(main())
