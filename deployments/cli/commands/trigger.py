"""`ahc trigger`."""

import asyncio
import json
import sys
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli.interrupt import run_interruptible
from deployments.display.azure_pipelines import Log, in_azure_pipelines
from deployments.display.build_log import BuildLog
from deployments.display.junit import write_junit
from deployments.display.plain_log import SILENCE, Form, Heartbeat, PlainLog
from deployments.display.run_summary import markdown
from deployments.runs.decisions import Approvals, require_said
from deployments.runs.follow import FollowTimeout, cancel, follow
from deployments.runs.report import Evidence, Report, read_evidence, refused, report
from deployments.runs.run_reader import Snapshot
from deployments.runs.start import Request, go_on, start
from deployments.server.connection import connect, ui_link
from infra.errors import PlatformError
from infra.settings import get_settings
from tasks.framework.error_table import OUTCOMES, ended_as, exit_code

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun


class NotPromoted(StrEnum):
    """What a model that isn't promoted means for the caller."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


def trigger(
    deployment: Annotated[str, typer.Argument(help="FLOW/NAME, such as lifecycle/local.")],
    parameter: Annotated[
        list[str] | None, typer.Option("-p", metavar="KEY=VALUE", help="A parameter; dots reach inside.")
    ] = None,
    params: Annotated[Path | None, typer.Option(metavar="FILE", help="Parameters as YAML or JSON.")] = None,
    wait: Annotated[bool, typer.Option(help="Follow the run to its end, or only start it.")] = True,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Start once per key; later calls follow the same run.")
    ] = None,
    rerun_ended: Annotated[
        bool, typer.Option("--rerun-ended", help="Where the key's run failed before, go on from its failed step.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=1, help="Stop following after so long; the run goes on.")
    ] = None,
    not_promoted: Annotated[
        NotPromoted, typer.Option(help="How to exit when the model isn't better: 0, 0 with a warning, or 3.")
    ] = NotPromoted.FAILURE,
    summary: Annotated[Path | None, typer.Option(metavar="FILE", help="Write how it ended as Markdown.")] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the gates as JUnit tests.")] = None,
    approved_by: Annotated[str, typer.Option(metavar="WHO", help="Approve, in this name, what waits for it.")] = "",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why it is approved.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON, all else on stderr.")] = False,
) -> int:
    """Start a deployment, follow its states and log lines, exit with its code.

    Ctrl-C or SIGTERM cancels the run. Exit codes: `docs/commands.md`.
    """
    request = Request(
        deployment=deployment,
        pairs=tuple(parameter or ()),
        file=params,
        key=idempotency_key,
        rerun_ended=rerun_ended,
    )
    if approved_by or reason:
        require_said({"--approved-by": approved_by, "--reason": reason})
    call = Trigger(
        as_json=as_json,
        not_promoted=not_promoted,
        summary=summary,
        junit=junit,
        approvals=Approvals(approved_by, reason) if approved_by else None,
    )
    return run_interruptible(call.start(request, wait=wait, patience=timeout))


class Trigger:
    """One call of `ahc trigger`.

    Args:
        as_json: Print one JSON document to standard output, and all else to standard error.
        not_promoted: What a model that isn't promoted means.
        summary: Where Markdown goes.
        junit: Where the gates go.
        approvals: Approves what waits for it.
        silence: Seconds without a line after which a sentence says what runs.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        not_promoted: NotPromoted = NotPromoted.FAILURE,
        summary: Path | None = None,
        junit: Path | None = None,
        approvals: Approvals | None = None,
        silence: float = SILENCE,
    ) -> None:
        self._as_json = as_json
        self._not_promoted = not_promoted
        self._summary = summary
        self._junit = junit
        self._approvals = approvals
        # With --json, standard output holds the one document that a pipeline parses.
        self._form = _form(as_json=as_json, not_promoted=not_promoted)
        self._heartbeat = Heartbeat(self._form.tell, silence)
        self._last: Snapshot | None = None
        self._run: FlowRun | None = None
        self._link = ""

    async def start(self, request: Request, *, wait: bool = True, patience: float | None = None) -> int:
        """Answers the exit code.

        Raises:
            PlatformError: Nothing could be started or followed.
        """
        try:
            async with connect(get_settings()) as client:
                return await self._follow(client, request, wait=wait, patience=patience)
        except PlatformError as error:
            ended = refused(request.deployment, error, self._run, self._link)
            if in_azure_pipelines():
                return self._finish(ended)
            self._conclude(ended)
            raise

    async def _follow(self, client: "PrefectClient", request: Request, *, wait: bool, patience: float | None) -> int:
        name = request.deployment
        starting = asyncio.ensure_future(start(client, request, self._form.tell))
        try:
            run = await asyncio.shield(starting)
        except asyncio.CancelledError:
            run = await self._cancel(client, await starting)  # it may have reached the server by now
            link = ui_link("runs/flow-run", run.id, str(client.api_url))
            return self._finish(report(run, name, link, OUTCOMES["Cancelled"]))
        link = ui_link("runs/flow-run", run.id, str(client.api_url))
        self._run, self._link = run, link
        self._form.tell(f"{name} runs as {run.name}: {link}")
        since: datetime | None = None
        if request.rerun_ended and (since := await go_on(client, run)):
            self._form.tell("It had ended before, and goes on from its failed step.")
        if not wait:
            return self._finish(report(run, name, link, 0))
        try:
            async with asyncio.timeout(patience):
                run = await follow(client, run.id, see=self._see, tell=self._form.tell, since=since)
        except TimeoutError:
            run = await client.read_flow_run(run.id)
            return self._finish(report(run, name, link, OUTCOMES[FollowTimeout.__name__], followed_for=patience))
        except asyncio.CancelledError:
            run = await self._cancel(client, run)
            return self._finish(report(run, name, link, OUTCOMES["Cancelled"]))
        evidence = await self._evidence(client, run)
        return self._finish(report(run, name, link, self._code(run), evidence))

    def _see(self, snapshot: Snapshot) -> None:
        self._last = snapshot
        self._form.see(snapshot)
        self._heartbeat.see(snapshot)
        if self._approvals is not None:
            self._approvals.see(snapshot, self._form.tell)

    async def _cancel(self, client: "PrefectClient", run: "FlowRun") -> "FlowRun":
        self._form.tell("Cancelling the run.")
        try:
            return await cancel(client, run.id)
        except asyncio.CancelledError:
            # An agent of Azure Pipelines asks a second time after 7.5 s, and kills after another 2.5 s.
            return await client.read_flow_run(run.id)

    async def _evidence(self, client: "PrefectClient", run: "FlowRun") -> Evidence:
        import httpx

        flow_runs = [item.id for item in self._last.flow_runs] if self._last else [run.id]
        try:
            return await read_evidence(client, flow_runs)
        except httpx.TransportError:
            self._form.tell("The server doesn't answer any more: what the run published is in the UI alone.")
            return Evidence()

    def _code(self, run: "FlowRun") -> int:
        state = run.state
        assert state is not None
        ended = ended_as(state.type.value, state.name or "", state.message or "")
        if ended == "NotPromoted" and self._not_promoted is not NotPromoted.FAILURE:
            return 0
        return exit_code(state.type.value, ended)

    def _finish(self, ended: Report) -> int:
        self._conclude(ended)
        if self._as_json:
            print(json.dumps(outcome(ended)))
        return ended.exit_code

    def _conclude(self, ended: Report) -> None:
        if self._summary is not None:
            self._summary.parent.mkdir(parents=True, exist_ok=True)
            self._summary.write_text(markdown(ended), encoding="utf-8")
        if self._junit is not None:
            write_junit(ended, self._junit)
        self._form.end(ended)


def _form(*, as_json: bool, not_promoted: NotPromoted) -> Form:
    out = sys.stderr if as_json else sys.stdout
    if not in_azure_pipelines():
        return PlainLog(out)
    log = Log(lambda line: print(line, file=out, flush=True))
    return BuildLog(log, not_promoted_warns=not_promoted is NotPromoted.WARNING)


def outcome(ended: Report) -> dict[str, Any]:
    """What a pipeline wants to know of a run."""
    return {
        "run_id": ended.run_id,
        "run": ended.run,
        "state_type": ended.state_type or None,
        "state": ended.state or None,
        "message": ended.message or None,
        "seconds": ended.seconds,
        "link": ended.link,
        "exit_code": ended.exit_code,
        "model": ended.evidence.model_name or None,
        "version": ended.evidence.model_version,
        "verdict": ended.evidence.verdict or None,
    }
