"""`ahc trigger`."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.connection import connect, ui_link
from deployments.follow import FollowTimeout, cancel, follow
from deployments.interrupt import run_interruptible
from deployments.lines import Line
from deployments.parameters import parse_parameters
from deployments.watch import Snapshot
from infra.correlation import correlation_tags
from infra.environments import nearest
from infra.errors import ConfigurationError
from infra.settings import get_settings
from infra.started_by import started_by_tags
from infra.telemetry import configured, traceparent
from tasks.failures import OUTCOMES, ended_as, exit_code, runbook

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.client.schemas.responses import DeploymentResponse


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
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=1, help="Stop following after so long; the run goes on.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON, all else on stderr.")] = False,
) -> int:
    """Start a deployment, follow its states and log lines, exit with its code.

    Ctrl-C or SIGTERM cancels the run. Exit codes: `docs/commands.md`.
    """
    call = Trigger(as_json=as_json)
    return run_interruptible(call.start(deployment, parameter or [], params, idempotency_key, wait, timeout))


class Trigger:
    """One call of `ahc trigger`."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        # With --json, standard output holds the one document that a pipeline parses.
        self._out = sys.stderr if as_json else sys.stdout

    async def start(
        self, name: str, pairs: list[str], file: Path | None, key: str | None, wait: bool, patience: float | None
    ) -> int:
        async with connect(get_settings()) as client:
            deployment = await find_deployment(client, name)
            schema = deployment.parameter_openapi_schema or {}
            parameters = parse_parameters(pairs, file, schema, deployment.parameters)
            asked_at = datetime.now(UTC)
            run = await client.create_flow_run_from_deployment(
                deployment.id,
                parameters=parameters,
                idempotency_key=key,
                tags=[*correlation_tags(), *started_by_tags()],
                job_variables=_environment(),
            )
            link = ui_link("runs/flow-run", run.id, str(client.api_url))
            again = key is not None and run.created is not None and run.created < asked_at
            self._say(f"{name} runs as {run.name}: {link}" if not again else f"{key} was started before: {link}")
            if not wait:
                return self._finish(run, link, 0)
            try:
                async with asyncio.timeout(patience):
                    run = await follow(client, run.id, see=self._see, tell=self._say)
            except TimeoutError:
                run = await client.read_flow_run(run.id)
                return self._finish(run, link, OUTCOMES[FollowTimeout.__name__], after=patience)
            except asyncio.CancelledError:
                self._say("Cancelling the run.")
                run = await cancel(client, run.id)
                return self._finish(run, link, OUTCOMES["Cancelled"])
            state = run.state
            assert state is not None
            return self._finish(run, link, exit_code(state.type.value, _ended_as(state)))

    def _see(self, snapshot: Snapshot) -> None:
        for line in snapshot.lines:
            # Prefect repeats a failed state as a traceback of its own engine; the state has said it.
            if not line.text.startswith("Engine execution exited with unexpected exception"):
                self._say(as_text(line, colour=self._out.isatty()))

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def _finish(self, run: "FlowRun", link: str, code: int, after: float | None = None) -> int:
        facts = outcome(run, link, code)
        if self._as_json:
            print(json.dumps(facts))
            return code
        if after is not None:
            self._say(f"Not ended within {after:.0f} s; the run goes on. Exit code {code}.")
        elif run.state is not None and run.state.is_final():
            self._say(f"{run.name}: {facts['state']}. Exit code {code}.")
            if code:
                self._say(f"  Why:     ahc why {run.id}\n  Runbook: {runbook(facts['state'])}")
        return code


def _environment() -> dict[str, Any] | None:
    """What the process of the run is told, wherever a worker starts it: of which build this command is a part."""
    given = get_settings().correlation_id
    variables = {"AHC_CORRELATION_ID": given} if given else {}
    if configured():
        variables["TRACEPARENT"] = traceparent()
    return {"env": variables} if variables else None


async def find_deployment(client: "PrefectClient", name: str) -> "DeploymentResponse":
    """The deployment `flow/name`.

    Raises:
        ConfigurationError: There is none; names the nearest.
    """
    from deployments.apply import read_deployments

    known = await read_deployments(client)
    if name not in known:
        hint = nearest(name, list(known)) if known else "the server has none; run `ahc deploy` first."
        raise ConfigurationError(f"There is no deployment `{name}`: {hint}")
    return known[name]


def outcome(run: "FlowRun", link: str, code: int) -> dict[str, Any]:
    """What a pipeline wants to know of a run."""
    state = run.state
    return {
        "run_id": str(run.id),
        "run": run.name,
        "state_type": state.type.value if state else None,
        "state": _ended_as(state) if state else None,
        "message": state.message if state else None,
        "seconds": round(run.total_run_time.total_seconds(), 1),
        "link": link,
        "exit_code": code,
    }


def _ended_as(state: "State[Any]") -> str:
    return ended_as(state.type.value, state.name or "", state.message or "")


def as_text(line: Line, *, colour: bool) -> str:
    """One line for a terminal or a build log."""
    mark = "»" if line.state else "|"
    text = f"{line.time.astimezone():%H:%M:%S} {line.run} {mark} {line.text}"
    shade = 31 if line.level >= 40 else 33 if line.level >= 30 else 2 if line.state else 0
    return f"\033[{shade}m{text}\033[0m" if colour and shade else text
