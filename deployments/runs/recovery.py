"""Runs that lost their process with the platform: say so, so that nobody waits for them, and let them go on.

An interrupted run gets a state of type Crashed and of the name `Interrupted`. The automation that continues crashed
runs doesn't answer to that name: whether an interrupted run goes on is decided by the next `ahc up` (same parameters)
or by a person (`ahc rerun`), not by whichever worker starts first.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from infra.runs.pages import read_all_async

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

INTERRUPTED: Final = "Interrupted"


async def mark_interrupted(client: "PrefectClient", why: str) -> list["FlowRun"]:
    """Give every run of a deployment that claims to run, and all below it, the state `Interrupted`.

    Only for a server whose workers are known to be gone. Runs without a deployment belong to a process of their own
    (`ahc run`) and are left alone.

    Returns:
        The topmost runs that were marked.
    """
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    active = FlowRunFilter(
        state=FlowRunFilterState(
            type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])
        ),
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),
    )
    runs = await read_all_async(client.read_flow_runs, flow_run_filter=active)
    for run in runs:
        await _mark(client, run, why)
    return runs


async def _mark(client: "PrefectClient", run: "FlowRun", why: str) -> None:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId

    assert run.state is not None
    if not run.state.is_final():
        await client.set_flow_run_state(run.id, _ended(run.state.is_cancelling(), why))
    this = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    for task_run in await read_all_async(client.read_task_runs, flow_run_filter=this):
        if task_run.state is not None and not task_run.state.is_final():
            await client.set_task_run_state(task_run.id, _ended(False, why), force=True)
    below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id]))
    for child in await read_all_async(client.read_flow_runs, flow_run_filter=below):
        await _mark(client, child, why)


def _ended(cancelling: bool, why: str) -> Any:
    from prefect.client.schemas.objects import State, StateType

    if cancelling:
        return State(type=StateType.CANCELLED, name="Cancelled", message=why)
    return State(type=StateType.CRASHED, name=INTERRUPTED, message=why)


async def forget_scheduled(client: "PrefectClient", deployment: str) -> None:
    """Delete the runs of a deployment that wait for their time or turn; without the deployment, nothing.

    For what looks at everything anyway whenever it runs, such as a reconciliation: what was missed while the platform
    was away needs no run each, one after another, in the moments in which the platform starts.
    """
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.exceptions import ObjectNotFound

    try:
        found = await client.read_deployment_by_name(deployment)
    except ObjectNotFound:
        return
    waiting = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        deployment_id=FlowRunFilterDeploymentId(any_=[found.id]),
    )
    for run in await read_all_async(client.read_flow_runs, flow_run_filter=waiting):
        with suppress(ObjectNotFound):
            await client.delete_flow_run(run.id)


async def continue_interrupted(
    client: "PrefectClient", deployment_id: UUID, parameters: dict[str, Any]
) -> "FlowRun | None":
    """Let the newest run of a deployment go on if it was interrupted and was asked for the same."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
    from prefect.client.schemas.objects import State, StateType
    from prefect.client.schemas.sorting import FlowRunSort

    newest = await client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
        sort=FlowRunSort.START_TIME_DESC,
        limit=20,
    )
    ended = [run for run in newest if run.state is not None and not run.state.is_scheduled()]
    if not ended or ended[0].state_name != INTERRUPTED or ended[0].parameters != parameters:
        return None
    await client.set_flow_run_state(
        ended[0].id,
        State(type=StateType.SCHEDULED, name="AwaitingRetry", message="Goes on after its last finished step."),
    )
    return await client.read_flow_run(ended[0].id)
