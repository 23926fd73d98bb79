"""Which runs may be run again from their failed step, and how a worker gets them."""

from typing import TYPE_CHECKING
from uuid import UUID

from deployments.runs.queries import release_again, run_url
from deployments.server.connection import RERUNNING, one_at_a_time
from infra.errors import ConfigurationError, ReleaseRejected
from tasks.framework.error_table import ended_as

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

RERUNNABLE = ("FAILED", "CRASHED", "CANCELLED")


def require_rerunnable(run: "FlowRun") -> None:
    """Refuse a run that a rerun doesn't help.

    Raises:
        ConfigurationError: It succeeded, waits for a decision, or has not ended.
        ReleaseRejected: A person decided, or nobody did in time.
    """
    state = run.state
    kind = state.type.value if state else "SCHEDULED"
    name = state.name if state else "Scheduled"
    if kind == "COMPLETED":
        raise ConfigurationError(
            f"`{run.name}` is {name}: only failed, crashed and cancelled runs are rerun.",
            next_step="Start a new run with `ahc trigger`; it uses again whatever did not change.",
        )
    if kind == "PAUSED":
        raise ConfigurationError(
            f"`{run.name}` waits for a decision.", next_step="Decide with `ahc approve` or `ahc reject`."
        )
    if kind not in RERUNNABLE:
        raise ConfigurationError(
            f"`{run.name}` is {name}: it has not ended yet.", next_step=f"Look at it: {run_url(run.id)}"
        )
    if ended_as(kind, name or "", (state.message if state else "") or "") == "ReleaseRejected":
        raise ReleaseRejected(
            f"`{run.name}` ended by a person's decision, or nobody decided in time; a rerun would end the same.",
            next_step=f"Start a new release, with evidence of today: `{release_again(run)}`.",
        )


async def schedule(client: "PrefectClient", run_id: UUID) -> None:
    """Hand the run to the next free worker; of several who do so at once, one succeeds.

    Forced, as Prefect's own retry is: an orchestrated change would forget that the run was approved already.

    Raises:
        ConfigurationError, ReleaseRejected: As `require_rerunnable`, also where somebody else was quicker.
    """
    from prefect.states import Scheduled

    # Prefect changes a state whatever it is by now.
    async with one_at_a_time(client, RERUNNING):
        require_rerunnable(await client.read_flow_run(run_id))
        await client.set_flow_run_state(run_id, Scheduled(name="AwaitingRetry", message="ahc rerun"), force=True)
