"""Training on a real cluster, disturbed in every way: `python -m tests.kubernetes.rehearsal [FOLDER]`.

KUBECONFIG names the cluster, AHC_TRAINING_IMAGE an image that it has (default localhost/training:ci); see docs/gpu.md.
Each scene says what happened, and how long it took.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from infra.runs.faults import read_fault
from model.data.manifest import DataVersion
from model.faults import Fault
from model.training.fit import FitResult
from tests.support.cluster import (
    RUNS_AS,
    as_nodes,
    gpu_taken,
    kubectl,
    missing,
    phase,
    platform,
    pods,
    running_pod,
    until,
)
from tests.support.training_case import short_training, small_data

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

TOLERANCE: Final = 1e-4
"""Between the metrics of an interrupted training and those of one that wasn't."""
EPOCHS: Final = 8
KILL: Final = "kill -9 $(cat /proc/1/task/1/children)"


@dataclass
class Rehearsal:
    """One server, one data version, and what the scenes found."""

    folder: Path
    data: DataVersion
    client: "SyncPrefectClient"
    reference: FitResult | None = None
    last: UUID | None = None
    """The run on the GPU that made the reference."""
    lines: list[str] = field(default_factory=list)
    _trainings: int = 0

    @contextmanager
    def scene(self, title: str) -> Iterator[None]:
        started = time.monotonic()
        self.say(f"== {title}")
        yield
        self.say(f"   as expected, {time.monotonic() - started:.0f} s")

    def say(self, text: str) -> None:
        self.lines.append(text)
        print(text, flush=True)

    # --- what a scene does ---

    def start(self, epochs: int = EPOCHS) -> UUID:
        """A training of its own key that computes what all others do: how much is cached changes no number."""
        self._trainings += 1
        config = short_training(
            epochs=epochs, head_epochs=1, early_stopping_patience=0, cache_limit_mb=2000 + self._trainings
        )
        deployment = self.client.read_deployment_by_name("training/local")
        parameters = {
            "data": self.data.model_dump(mode="json"),
            "config": config.model_dump(mode="json"),
        }
        return self.client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id

    def fitting(self, parent: UUID) -> UUID:
        """The run on the GPU that this training started."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

        def find() -> UUID | None:
            below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]))
            runs = self.client.read_flow_runs(flow_run_filter=below)
            return runs[0].id if runs else None

        return until(find, "the run on the GPU")

    def line(self, run: UUID, text: str) -> str:
        """The first log line of this run with this text, once there is one."""
        return until(lambda: next((item for item in self.log(run) if text in item), None), f"the line {text!r}")

    def log(self, run: UUID) -> list[str]:
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
        from prefect.client.schemas.sorting import LogSort

        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
        found, page = [], self.client.read_logs(wanted, sort=LogSort.TIMESTAMP_ASC, limit=200)
        while page:
            found += page
            page = self.client.read_logs(wanted, sort=LogSort.TIMESTAMP_ASC, limit=200, offset=len(found))
        return [item.message for item in found]

    def ended(self, run: UUID) -> "FlowRun":
        def find() -> "FlowRun | None":
            found = self.client.read_flow_run(run)
            return found if found.state is not None and found.state.is_final() else None

        return until(find, "the end of the run")

    def result(self, fitting: UUID) -> FitResult:
        return FitResult.model_validate_json((self.state(fitting) / "result.json").read_text())

    def state(self, fitting: UUID) -> Path:
        tag = next(tag for tag in self.client.read_flow_run(fitting).tags if tag.startswith("training:"))
        return self.folder / "home" / "training" / tag.removeprefix("training:")

    def fault(self, run: UUID) -> Fault:
        fault = read_fault(self.client, [run])
        assert fault is not None
        return fault

    def completed(self, parent: UUID) -> None:
        state = self.ended(parent).state
        assert state is not None
        assert state.is_completed(), f"{state.name}: {state.message}"

    def same_as_uninterrupted(self, fitting: UUID) -> str:
        """How far the metrics of the last epoch are from those of the training that nobody disturbed."""
        assert self.reference is not None
        here, there = self.result(fitting).history, self.reference.history
        assert [item.epoch for item in here] == [item.epoch for item in there]
        names = ("train_loss", "validation_loss", "validation_accuracy", "validation_macro_recall")
        apart = max(abs((getattr(here[-1], name) or 0) - (getattr(there[-1], name) or 0)) for name in names)
        assert apart <= TOLERANCE, apart
        return f"metrics of epoch {here[-1].epoch} differ by {apart:.1e}"

    def interruptions(self, parent: UUID) -> list[str]:
        words = ("interrupted", "started again", "Asked to stop")
        return [item for item in self.log(parent) if any(word in item for word in words)]


# --- scenes ---------------------------------------------------------------------------------------------------------


def waits_and_is_not_disturbed(act: Rehearsal) -> None:
    with act.scene("The GPU is taken: the training waits, and says so; then nobody disturbs it"):
        with gpu_taken():
            parent = act.start()
            act.say(f"   {act.line(parent, 'Insufficient nvidia.com/gpu')}")
        act.completed(parent)
        act.last = act.fitting(parent)
        act.reference = act.result(act.last)
        last = act.reference.history[-1]
        act.say(f"   epoch {last.epoch}: loss {last.validation_loss:.6f}, accuracy {last.validation_accuracy:.3f}")


def _disturbed(act: Rehearsal, disturb: Callable[[str], object]) -> UUID:
    parent = act.start()
    fitting = act.fitting(parent)
    act.line(fitting, '"epoch":{"epoch":2,')
    disturb(running_pod(str(fitting)))
    act.completed(parent)
    for item in act.interruptions(parent):
        act.say(f"   {item}")
    assert any("interrupted" in item for item in act.interruptions(parent))
    result = act.result(fitting)
    act.say(f"   went on after epoch {result.resumed_from_epoch}, batch {result.resumed_at_batch}")
    act.say(f"   {act.same_as_uninterrupted(fitting)}")
    return fitting


def pod_is_deleted(act: Rehearsal) -> None:
    with act.scene("The pod is deleted in the middle of an epoch, as with a reclaimed spot node"):
        fitting = _disturbed(act, lambda pod: kubectl("delete", "pod", pod, "--wait=false"))
        assert any("Asked to stop" in item for item in act.log(fitting))


def process_is_killed(act: Rehearsal) -> None:
    with act.scene("The process is killed by SIGKILL"):
        _disturbed(act, lambda pod: kubectl("exec", pod, "--", "sh", "-c", KILL))


def two_pods_train_together(act: Rehearsal) -> None:
    from prefect.states import Pending, Scheduled

    with act.scene("Two pods train one network"):
        assert act.last is not None
        deployment, run = act.client.read_deployment_by_name("fit/gpu"), act.client.read_flow_run(act.last)
        job = dict(run.parameters["job"])
        job |= {"key": "two-pods", "nodes": 2, "config": {**job["config"], "num_nodes": 2}}
        both = act.client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"job": job},
            tags=["training:two-pods"],
            state=Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1)),  # no worker takes it
        )
        act.client.set_flow_run_state(both.id, Pending(), force=True)
        nodes = as_nodes(str(both.id), str(act.last), 2)
        for name in nodes:
            ended = until(lambda pod=name: phase(pod) if phase(pod) in ("Succeeded", "Failed") else None, "its end")  # type: ignore[misc]
            assert ended == "Succeeded", kubectl("logs", name)
        kubectl("delete", "pod", *nodes, "--now")
        act.say(f"   {act.line(both.id, '[node 1] is done')}")
        act.say(f"   {act.same_as_uninterrupted(both.id)}")


def run_is_cancelled(act: Rehearsal) -> None:
    from prefect.states import Cancelling

    with act.scene("The training is cancelled in the UI"):
        parent = act.start(epochs=1000)
        fitting = act.fitting(parent)
        act.line(fitting, '"epoch":{"epoch":2,')
        act.client.set_flow_run_state(parent, Cancelling())
        states = [act.ended(run).state for run in (parent, fitting)]
        assert all(state is not None and state.is_cancelled() for state in states), states
        assert (act.state(fitting) / "last.ckpt").exists()
        assert not (act.state(fitting) / "result.json").exists()
        until(lambda: None if _active(fitting) else True, "the end of the pod")
        act.say(f"   both runs are Cancelled, no pod is left, {act.line(fitting, 'Asked to stop')}")


def memory_is_too_small(act: Rehearsal, memory: str) -> None:
    with act.scene(f"The pod's memory is too small ({memory})"):
        deployment = act.client.read_deployment_by_name("fit/gpu")
        set_variables(deployment.id, {"memory": memory})
        try:
            parent = act.start()
            state = act.ended(parent).state
        finally:
            set_variables(deployment.id, {})
        assert state is not None
        assert state.name == "TrainingJobFailed", f"{state.name}: {state.message}"
        assert "OOMKilled" in act.fault(parent).message
        act.say(f"   {act.fault(parent).message}")


def set_variables(deployment: UUID, variables: dict[str, Any]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentUpdate

    async def update() -> None:
        async with get_client() as client:
            await client.update_deployment(deployment, DeploymentUpdate(job_variables=variables))

    asyncio.run(update())


def _active(run: UUID) -> bool:
    return any(pod["status"]["phase"] in ("Running", "Pending") for pod in pods(str(run)))


SCENES: Final[dict[str, Callable[[Rehearsal], None]]] = {
    "waits": waits_and_is_not_disturbed,
    "deleted": pod_is_deleted,
    "killed": process_is_killed,
    "pods": two_pods_train_together,
    "cancelled": run_is_cancelled,
    "memory": lambda act: memory_is_too_small(act, "420Mi"),
}


def rehearse(folder: Path, scenes: tuple[str, ...] = tuple(SCENES)) -> list[str]:
    """Play the scenes; answers what they said."""
    from prefect.client.orchestration import get_client

    folder.chmod(0o755)
    with platform(folder):
        data = small_data(folder / "home" / "data", images=30)
        subprocess.run(["chown", "--recursive", f"{RUNS_AS}:{RUNS_AS}", folder / "home"], check=True)
        with get_client(sync_client=True) as client:
            act = Rehearsal(folder, data, client)
            for name in scenes:
                SCENES[name](act)
    return act.lines


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="rehearsal-"))
    where.mkdir(exist_ok=True)
    rehearse(where, tuple(sys.argv[2:]) or tuple(SCENES))
