"""Whether who runs this code was cancelled, and doesn't merely die."""

from typing import Any, Final
from uuid import UUID

from infra.correlation import root_run

CANCELLED: Final = frozenset({"CANCELLING", "CANCELLED"})


def run_is_cancelled() -> bool:
    """Whether somebody cancelled this flow run or the one that it is a part of; False outside of runs.

    A worker ends the process of a cancelled run by the same signal as a machine that shuts down: only the server knows
    the difference. Where it doesn't answer, the run counts as not cancelled.
    """
    from prefect import runtime
    from prefect.client.orchestration import get_client

    runs = {str(runtime.flow_run.id), root_run()} if runtime.flow_run.id else set()
    try:
        with get_client(sync_client=True) as client:
            return any(_state(client.read_flow_run(UUID(run))) in CANCELLED for run in runs)
    except Exception:  # noqa: BLE001 - whatever keeps the server from answering
        return False


def _state(run: Any) -> str:
    return run.state.type.value if run.state else ""
