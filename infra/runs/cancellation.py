"""Whether who runs this code was cancelled, and doesn't merely die."""

from typing import Final
from uuid import UUID

from infra.runs.correlation import root_run

CANCELLED: Final = frozenset({"CANCELLING", "CANCELLED"})


def run_is_cancelled() -> bool:
    """Whether somebody cancelled this flow run or the one that it is a part of; False outside of runs.

    A worker ends the process of a cancelled run by the same signal as a machine that shuts down: only the server knows
    the difference. Where it doesn't answer, the run counts as not cancelled.
    """
    from prefect import runtime

    return bool(_states({str(runtime.flow_run.id), root_run()} if runtime.flow_run.id else set()) & CANCELLED)


def run_is_cancelling() -> bool:
    """Whether somebody asked this very flow run to stop and its state doesn't say yet that it has; as above."""
    from prefect import runtime

    return "CANCELLING" in _states({str(runtime.flow_run.id)} if runtime.flow_run.id else set())


def _states(runs: set[str]) -> set[str]:
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            found = [client.read_flow_run(UUID(run)).state for run in runs]
    except Exception:  # noqa: BLE001 - whatever keeps the server from answering
        return set()
    return {state.type.value for state in found if state}
