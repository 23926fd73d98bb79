"""Who started a run, and so may not approve it alone."""

from typing import TYPE_CHECKING, Any, Final, cast

from infra.runs.correlation import root_run
from infra.runs.starter_tag import TAG, user

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

UNKNOWN: Final = "somebody in the Prefect UI"
"""The form of a run in the UI doesn't say who fills it in, unless they name themselves in the parameter `by`."""


def started_by(name: str = "") -> str:
    """Who started the run that this code is a part of: this name, or what the run itself says."""
    if name.strip():
        return name.strip()
    root = root_run()
    if not root:
        return user()
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return who_started(client.read_flow_run(cast("Any", root)))


def who_started(run: "FlowRun") -> str:
    """Who started this run, by its parameter `by`, its tag, or how it came to be."""
    parameter = str(run.parameters.get("by") or "").strip()
    tag = next((item.removeprefix(TAG) for item in run.tags if item.startswith(TAG)), "")
    if parameter or tag:
        return parameter or tag
    if run.auto_scheduled:
        return "trigger:schedule"
    return UNKNOWN if run.deployment_id else user()
