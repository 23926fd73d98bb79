"""`ahc rerun`: run a failed run again; what had finished is not repeated."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from deployments.cli.in_process import outcome, rerun_here
from deployments.cli.show_run import attend
from deployments.display import colours as show
from deployments.runs.queries import facts, find_run, finished, recent_runs, root_of, run_url, steps
from deployments.runs.rerun import RERUNNABLE, require_rerunnable, schedule
from deployments.server.connection import connect, server
from infra.errors import RunNotFound
from infra.settings import Settings, get_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State


def rerun(
    run: Annotated[
        str, typer.Argument(help="Id, start of an id, or name of a run; without, the last failed one.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow it and exit with its code.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The facts as JSON.")] = False,
) -> int:
    """Run a failed, crashed or cancelled run again, from the step that failed.

    The run keeps its name and link. Finished steps answer from their stored results. A subflow is rerun through the
    run that started it, and a run of `ahc run` in this process.

    Examples: `ahc rerun`, `ahc rerun 3f2a91 --wait`
    """
    settings = get_settings()
    with server(settings) as client:
        flow_run = _choose(client, run)
        require_rerunnable(flow_run)
        flow = facts(client, [flow_run])[0].flow
        finished_steps = finished(steps(client, flow_run.id))
        here = flow_run.deployment_id is None
    if not here:
        asyncio.run(_schedule(settings, flow_run))
    _tell(flow_run, finished_steps, here=here, as_json=as_json)
    if here:
        state = rerun_here(flow_run, flow)
        return _tell_end(state, outcome(state), as_json=as_json)
    if wait:
        ended, code = attend(flow_run.id, settings)
        return _tell_end(ended.state, code, as_json=as_json)
    return 0


def _choose(client: "SyncPrefectClient", reference: str) -> "FlowRun":
    if reference:
        return root_of(client, find_run(client, reference))
    flow_run = next(iter(recent_runs(client, states=RERUNNABLE, limit=1)), None)
    if flow_run is None:
        raise RunNotFound("No run failed lately; there is nothing to rerun.")
    return flow_run


async def _schedule(settings: Settings, run: "FlowRun") -> None:
    async with connect(settings) as client:
        await schedule(client, run.id)


def _tell(run: "FlowRun", finished_steps: int, *, here: bool, as_json: bool) -> None:
    if as_json:
        show.show_json({"run": run.id, "name": run.name, "kept_steps": finished_steps, "url": run_url(run.id)})
        return
    where = "in this process" if here else "by the next free worker"
    show.show(
        Text.assemble("Rerunning ", (run.name, "bold"), f" {where}; finished steps that are kept: {finished_steps}."),
        Text(f"  {run_url(run.id)}", style=show.QUIET),
    )


def _tell_end(state: "State[Any] | None", code: int, *, as_json: bool) -> int:
    assert state is not None
    if not as_json:
        style = show.state_style(state.type.value, state.name or "")
        show.show(Text.assemble(show.marked(state.name or "", style), f"  {state.message or ''}"))
    return code
