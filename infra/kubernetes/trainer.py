"""Trainings as runs of a Prefect deployment whose work pool starts Kubernetes jobs."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from infra.config.trainers import TrainerFile
from infra.errors import ConfigurationError, ServiceUnavailable, TrainingJobFailed
from infra.kubernetes.followed_run import FollowedRun
from infra.runs.cancellation import run_is_cancelled
from infra.runs.faults import read_fault
from infra.training import TrainingJob, TrainingUpdate
from model.faults import Fault

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

TAG: Final = "training:"
"""Leads the tag of a run that names the key of its training."""


class PrefectTrainer:
    """A `Trainer`.

    Args:
        described: The trainer file, with its section `kubernetes`.
    """

    def __init__(self, described: TrainerFile) -> None:
        self._described = described

    def train(self, job: TrainingJob, see: Callable[[TrainingUpdate], None]) -> None:
        """See `Trainer.train`."""
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            run = _running(client, job.key)
            if run is None:
                run = self._start(client, job)
                see(TrainingUpdate(text=f"Run {run.name} trains; it waits for a machine with a GPU."))
            else:
                see(TrainingUpdate(text=f"Run {run.name} trains this already; it is followed."))
            followed = FollowedRun(client, run.id, see, cost=lambda item: self._cost(item, job.nodes))
            try:
                ended = followed.to_the_end()
            except BaseException:
                # Who is killed leaves the job running for its next attempt; who is cancelled doesn't want it any more.
                if run_is_cancelled():
                    _cancel(client, run)
                raise
            if ended.state is None or not ended.state.is_completed():
                _fail(ended, followed.explanation, read_fault(client, [ended.id]))

    def _start(self, client: "SyncPrefectClient", job: TrainingJob) -> "FlowRun":
        from prefect.deployments import run_deployment
        from prefect.exceptions import ObjectNotFound

        assert self._described.kubernetes is not None
        deployment = self._described.kubernetes.deployment
        try:
            client.read_deployment_by_name(deployment)
        except ObjectNotFound as error:
            raise ConfigurationError(
                f"The Prefect server has no deployment {deployment}, which the trainer `{self._described.name}` names.",
                next_step="Apply it: `ahc deploy --server deployments/aks/server.yaml`. Or change AHC_TRAINER.",
            ) from error
        # As a part of the run that asks, so that the UI shows it there.
        started: Any = run_deployment(
            deployment,
            parameters={"job": job.model_dump(mode="json")},
            tags=[f"{TAG}{job.key}"],
            # One node is what every pool starts.
            job_variables={"nodes": job.nodes} if job.nodes > 1 else None,
            timeout=0,
        )
        return client.read_flow_run(started.id)

    def _cost(self, run: "FlowRun", nodes: int) -> str:
        price = self._described.hourly_price
        if price is None:
            return ""
        hours = run.estimated_run_time.total_seconds() / 3600
        return f"{hours * nodes * price:.2f} {self._described.currency} so far"


def _running(client: "SyncPrefectClient", key: str) -> "FlowRun | None":
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        FlowRunFilterTags,
    )
    from prefect.client.schemas.objects import StateType

    going_on = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=[f"{TAG}{key}"]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=going_on)),
        )
    )
    return runs[0] if runs else None


def _cancel(client: "SyncPrefectClient", run: "FlowRun") -> None:
    from prefect.states import Cancelling

    client.set_flow_run_state(run.id, Cancelling(message="The run that it belongs to was cancelled."))


def _fail(run: "FlowRun", explanation: str, fault: Fault | None) -> NoReturn:
    state = run.state
    assert state is not None
    reason = explanation or state.message or "no reason was told"
    if state.is_cancelled():
        raise TrainingJobFailed(
            f"The run {run.name} was cancelled; what it had saved is kept.",
            next_step="Rerun when it is wanted again: it goes on at the last checkpoint.",
        )
    if state.is_failed():
        message = state.message or f"The run {run.name} failed."
        if fault is None or fault.name != state.name:
            # The record of an earlier attempt, or a run of a version that wrote none: its state names the error too.
            fault = Fault(name=state.name or "", message=message)
        raise fault.error() if fault.kind else TrainingJobFailed(message)
    if not run.run_count:
        raise ServiceUnavailable(f"The machine of the run {run.name} was lost before the training began: {reason}")
    raise TrainingJobFailed(f"The run {run.name} lost its machine {run.run_count} times. The last time: {reason}")
