"""`ahc approve` and `ahc reject`: a person's decision on a release that waits for it."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from deployments.display import colours as show
from deployments.runs.decisions import decide, require_in_time, require_said
from deployments.runs.queries import facts, find_run, recent_runs, run_url
from deployments.server.connection import server
from infra.errors import RunNotFound
from infra.settings import get_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

Run = Annotated[str, typer.Argument(help="Id, start of an id, or name of the waiting release; without, a list.")]
By = Annotated[str, typer.Option("--by", help="Who decides; recorded on the model version and in the release ledger.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; recorded on the model version and in the release ledger.")]
AsJson = Annotated[bool, typer.Option("--json", help="The facts as JSON.")]

USAGE = 2


def approve(run: Run = "", by: By = "", reason: Reason = "", as_json: AsJson = False) -> int:
    """Approve a release that waits for a decision; it goes on at once.

    The environment's file says who may decide; with `four_eyes`, not who started the release.

    Examples: `ahc approve` (lists what waits), `ahc approve 3f2a91 --by "A. Jansen" --reason "checked on 200 photos"`
    """
    return _decide(run, approved=True, by=by, reason=reason, as_json=as_json)


def reject(run: Run = "", by: By = "", reason: Reason = "", as_json: AsJson = False) -> int:
    """Reject a release that waits for a decision; what is live stays live.

    Examples: `ahc reject` (lists what waits), `ahc reject 3f2a91 --by "A. Jansen" --reason "fish is worse"`
    """
    return _decide(run, approved=False, by=by, reason=reason, as_json=as_json)


def _decide(run: str, *, approved: bool, by: str, reason: str, as_json: bool) -> int:
    with server(get_settings()) as client:
        waiting = recent_runs(client, states=("PAUSED",), limit=100, subflows=True)
        if not run:
            _list(client, waiting, as_json=as_json)
            return USAGE
        flow_run = _waiting_run(client, run, waiting)
        require_said({"--by": by, "--reason": reason})
        decide(client, flow_run, approved=approved, by=by, reason=reason)
    word = "approved" if approved else "rejected"
    if as_json:
        show.show_json({"run": flow_run.id, "name": flow_run.name, "decision": word, "by": by, "reason": reason})
    else:
        follow_up = "goes on as soon as a worker takes it" if approved else "ends; what is live stays live"
        show.show(
            Text.assemble((flow_run.name, "bold"), f" is {word} by {by}; it {follow_up}."),
            Text(f"  {run_url(flow_run.id)}", style=show.QUIET),
        )
    return 0


def _waiting_run(client: "SyncPrefectClient", reference: str, waiting: "list[FlowRun]") -> "FlowRun":
    names = "; ".join(f"{run.name} ({str(run.id)[:8]})" for run in waiting)
    listed = f"Waiting: {names}." if names else "No release waits for a decision."
    try:
        flow_run = find_run(client, reference)
    except RunNotFound as error:
        raise RunNotFound(f"{error} {listed}", next_step="`ahc approve` without a run lists what waits.") from error
    require_in_time(flow_run)
    if flow_run.state is None or not flow_run.state.is_paused():
        word = flow_run.state.name if flow_run.state else "scheduled"
        raise RunNotFound(
            f"`{flow_run.name}` does not wait for a decision, it is {word}. {listed}",
            next_step="`ahc approve` without a run lists what waits.",
        )
    return flow_run


def _list(client: "SyncPrefectClient", waiting: "list[FlowRun]", *, as_json: bool) -> None:
    rows = facts(client, waiting)
    if as_json:
        show.show_json(rows)
        return
    if not rows:
        show.show("No release waits for a decision.")
        return
    cells = [
        (Text(item.id[:8], style=show.QUIET), item.name, show.ago(item.started), _expires(run))
        for item, run in zip(rows, waiting, strict=True)
    ]
    show.show(show.table(("run", "release", "since", "expires"), cells, title="Waiting for a decision"))
    show.show(Text('  ahc approve RUN --by YOU --reason "..."   or   ahc reject RUN ...', style=show.QUIET))


def _expires(run: "FlowRun") -> str:
    timeout = run.state.state_details.pause_timeout if run.state else None
    return f"{timeout.astimezone():%a %d %b %H:%M}" if timeout else "-"
