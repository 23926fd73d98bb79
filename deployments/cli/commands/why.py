"""`ahc why`: what a failed run died of, in plain words, and how to go on."""

import re
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from pydantic import Field
from rich.markdown import Markdown
from rich.text import Text

from deployments.display import colours as show
from deployments.runs.queries import (
    FAILED,
    RunFacts,
    Step,
    facts,
    failed_path,
    find_run,
    finished,
    last_log_lines,
    recent_runs,
    release_again,
    root_of,
    steps,
)
from deployments.server.connection import server
from infra.runs.faults import CARD, newest_artifact, read_fault
from infra.settings import get_settings
from model.faults import Fault
from model.values import Frozen
from tasks.framework.error_table import ERRORS, exit_code, runbook

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

KILLED = re.compile(r"status code:? -?(?:9|137)\b")


class Explanation(Frozen):
    """Why a run is as it is, and what to do."""

    run: RunFacts
    cause: str
    where: tuple[str, ...]
    next_step: str
    command: str | None
    runbook: str
    exit_code: int | None
    finished_steps: int
    log: tuple[str, ...]
    fault: Fault | None = Field(description="The record that the failed step left; None where it had no time to.")
    card: str = Field(description="The Markdown that a run left instead before faults were records.")


def why(
    run: Annotated[
        str, typer.Argument(help="Id, start of an id, or name of a run; without, the last failed one.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="The same facts as JSON.")] = False,
) -> int:
    """Explain why a run failed and which command continues it.

    Examples: `ahc why`, `ahc why 3f2a91`, `ahc why "lifecycle food@3f2a91"`
    """
    settings = get_settings()
    with server(settings) as client:
        flow_run = root_of(client, find_run(client, run)) if run else last_failed(client)
        if flow_run is None:
            if as_json:
                show.show_json(None)
            else:
                show.show("No run failed lately.")
            return 0
        explanation = explain(client, flow_run)
    if as_json:
        show.show_json(explanation)
    else:
        _print(explanation)
    return 0


def last_failed(client: "SyncPrefectClient") -> "FlowRun | None":
    return next(iter(recent_runs(client, states=FAILED, limit=1)), None)


def explain(client: "SyncPrefectClient", run: "FlowRun") -> Explanation:
    """Gather the failed step, the record of its fault and the log of a run."""
    about = facts(client, [run])[0]
    tree = steps(client, run.id)
    path = failed_path(tree) if about.state_type in FAILED else []
    ids = [run.id, *(UUID(step.id) for step in path if step.kind == "flow")]
    failed = about.state_type == "FAILED"
    fault = read_fault(client, ids) if failed else None
    card = newest_artifact(client, ids, CARD) if failed and fault is None else None
    cause, next_step = _in_words(about, path, fault)
    final = bool(run.state and run.state.is_final())
    return Explanation(
        run=about,
        cause=cause,
        where=tuple(step.name for step in path),
        next_step=next_step,
        command=_command(about, run),
        runbook=_runbook(about),
        exit_code=exit_code(about.state_type, about.state_name) if final else None,
        finished_steps=finished(tree),
        log=tuple(last_log_lines(client, ids)) if about.state_type in FAILED else (),
        fault=fault,
        card=str(card.data) if card else "",
    )


def _in_words(run: RunFacts, path: list[Step], fault: Fault | None) -> tuple[str, str]:
    """The cause and the next step."""
    if run.state_type == "CRASHED":
        return _crash(run)
    if run.state_type == "FAILED":
        if fault is not None:
            return fault.message if fault.kind else fault.title, fault.next_step
        kind = ERRORS.get(run.state_name)
        cause = next((step.message for step in reversed(path) if step.message), "") or run.message
        read_log = "Read the log lines below. If they show a bug, report it with the run's link."
        return cause or "The run failed without a message.", kind.next_step if kind else read_log
    return _unfailed(run)


def _crash(run: RunFacts) -> tuple[str, str]:
    cause = run.message or "The process of this run disappeared."
    if KILLED.search(cause):
        cause += " Something killed it (SIGKILL): most often the system, because memory ran out."
    return cause, "Check memory and disk with `ahc doctor`, then rerun: finished steps are not repeated."


def _unfailed(run: RunFacts) -> tuple[str, str]:
    if run.state_name == "NotPromoted":
        reason = run.message or "See the verdict table of the run."
        return (
            f"Nothing failed. The model was not promoted: {reason}",
            "Compare the verdict's checks, change, run again.",
        )
    if run.state_name == "Drifted":
        reason = run.message or "See the drift table of the run."
        return f"Nothing failed. {reason}", "Provision again, or change the parameters: the runbook says which when."
    if run.state_type == "PAUSED":
        return "Nothing failed. The release waits for a person.", "Decide with `ahc approve` or `ahc reject`."
    if run.state_name == "Late":
        return "Nothing failed, but no worker takes this run.", "Start the platform with `ahc up`; the run then starts."
    if run.state_type == "CANCELLED":
        return run.message or "Somebody cancelled this run.", "Rerun it if that was a mistake."
    return f"Nothing failed. The run is {run.state_name}. {run.message}".strip(), ""


def _command(about: RunFacts, run: "FlowRun") -> str | None:
    if about.state_type == "PAUSED":
        return f'ahc approve {about.id} --by YOU --reason "..."'
    if about.state_name == "ReleaseRejected":
        return release_again(run)
    if about.state_type in {*FAILED, "CANCELLED"}:
        return f"ahc rerun {about.id}"
    return None


def _runbook(run: RunFacts) -> str:
    """The runbook's section about how this run ended; empty where nothing needs one."""
    if run.state_name in ERRORS:
        return runbook(run.state_name)
    sections = {"CRASHED": "Crashed", "FAILED": "Failed", "CANCELLED": "Cancelled", "PAUSED": "WaitingRelease"}
    section = "Late" if run.state_name == "Late" else sections.get(run.state_type)
    return runbook(section) if section else ""


def _print(item: Explanation) -> None:
    run = item.run
    style = show.state_style(run.state_type, run.state_name)
    rows = [
        ("where", " › ".join(item.where)),
        ("what now", item.next_step),
        (
            "kept",
            f"steps that finished and are not repeated: {item.finished_steps}"
            if item.command and item.finished_steps
            else "",
        ),
        ("run", run.url),
        ("runbook", item.runbook),
        ("exit code", "" if item.exit_code is None else str(item.exit_code)),
    ]
    show.show(
        Text.assemble(show.marked(run.state_name, style), "  ", (run.name, "bold"), f"  {show.ago(run.ended)}"),
        Text(f"\n{item.cause}\n"),
        *(Text.assemble((f"  {label:<10}", show.QUIET), text) for label, text in rows if text),
    )
    if item.command:  # on a line of its own, to be copied whole
        show.show(Text(f"\n  {item.command}", style="bold"))
    if item.card:
        show.show(Text("\nFailure card", style=show.QUIET), Markdown(item.card))
    if item.log:
        show.show(Text("\nLast log lines", style=show.QUIET), *(Text(f"  {line}") for line in item.log))
