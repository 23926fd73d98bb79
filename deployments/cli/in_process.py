"""Runs of flows in this process, recorded by the Prefect server, or without one under AHC_HOME."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from deployments.cli.flow_catalogue import load_flow
from deployments.server.connection import require_server
from deployments.server.result_storage import ensure_result_storage
from infra.errors import NotProvisioned, ServerUnreachable
from infra.local.platform.prefect_server import prepare_database
from infra.local.platform.prefect_settings import use_prefect
from infra.runs.correlation import correlation_tags
from infra.runs.starter_tag import started_by_tags
from infra.settings import Settings
from tasks.framework.error_table import exit_code

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State


def connect(settings: Settings) -> str | None:
    """Set Prefect up for runs in this process; must come before anything imports Prefect.

    Where no server answers, Prefect starts one for the duration of this process (about 8 s) on the same database as
    `ahc up`: the run then shows in the UI of the next `ahc up`.

    Returns:
        None, or why a server of our own is needed.
    """
    use_prefect(settings)
    try:
        require_server(os.environ["PREFECT_API_URL"])
    except ServerUnreachable as error:
        del os.environ["PREFECT_API_URL"]
        os.environ |= {
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        }
        use_prefect_again()
        prepare_database(Path(os.environ["PREFECT_HOME"]) / "prefect.db")
        _keep_results(settings)
        return f"{error} This run is recorded under {settings.home} and shows in the UI of the next `ahc up`."
    _keep_results(settings)
    return None


def _keep_results(settings: Settings) -> None:
    try:
        ensure_result_storage(settings)
    except NotProvisioned:
        # The run that provisions a platform comes before its storage: its results stay on this machine.
        os.environ.pop("PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK", None)
        use_prefect_again()


def use_prefect_again() -> None:
    """Let an imported Prefect read its changed environment."""
    import sys

    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()


def run_here(name: str, parameters: Mapping[str, Any]) -> "State[Any]":
    """Run the flow `name` to its end; answers its final state, a failed one too."""
    from prefect import tags

    with tags(*correlation_tags(), *started_by_tags()):
        return cast("State[Any]", load_flow(name)(**parameters, return_state=True))


def rerun_here(run: "FlowRun", name: str) -> "State[Any]":
    """Run a run of the flow `name` again that was started in a process; finished steps answer from their results."""
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow
    from prefect.states import Scheduled
    from prefect.utilities.callables import get_call_parameters

    flow = load_flow(name)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry", message="ahc rerun"), force=True)
        run = client.read_flow_run(run.id)
    parameters = get_call_parameters(flow.fn, (), run.parameters)
    return cast("State[Any]", run_flow(flow, flow_run=run, parameters=parameters, return_type="state"))


def outcome(state: "State[Any]") -> int:
    """The exit code for a final state."""
    return exit_code(state.type.value, state.name or "")
