"""A run whose process died is started again by itself: by the automation in deployments/server.yaml."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

CONTINUATIONS: Final = 3
"""How often that automation starts one run again."""


def may_continue(run: "FlowRun") -> bool:
    """Whether this run crashed and is going to be started again by itself."""
    state = run.state
    return (
        state is not None
        and state.is_crashed()
        and state.name == "Crashed"
        and run.deployment_id is not None
        and 0 < run.run_count <= CONTINUATIONS
    )
