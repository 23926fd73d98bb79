"""`ahc status`: per environment what is live, then how recent runs went."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Annotated

import typer
from pydantic import Field
from rich.text import Text

from deployments.display import colours as show
from deployments.runs.queries import RunFacts, facts, recent_runs
from deployments.server.connection import server
from infra.backend import backend
from infra.config.environments import environment_names
from infra.errors import LedgerBroken, ServerUnreachable
from infra.ports import EndpointStatus, LiveModel, RegisteredModel
from infra.releases.ledger import ReleaseEvent, ReleaseLedger, last_word
from infra.releases.record_agreement import differences, registry_difference
from infra.settings import Settings, get_settings
from model.values import Frozen
from tasks.framework.error_table import ERRORS, runbook

RELEASED = "%Y-%m-%d %H:%M:%S UTC"
STATE_STYLES = {"running": show.GOOD, "unhealthy": show.BAD, "stopped": show.QUIET}


class EnvironmentFacts(Frozen):
    """One environment: what its endpoint reports, what ledger and registry say."""

    endpoint: EndpointStatus
    champion: RegisteredModel | None
    last_event: ReleaseEvent | None = Field(description="The ledger's last word on what runs here.")
    ledger_problem: str = Field(description="Why the ledger can't be asked; empty where it can.")
    differences: tuple[str, ...] = Field(description="Where ledger and registry say something else than the endpoint.")
    released: datetime | None

    @property
    def name(self) -> str:
        return self.endpoint.environment


def status(
    as_json: Annotated[bool, typer.Option("--json", help="The same facts as JSON.")] = False,
    runs: Annotated[int, typer.Option(min=0, max=100, help="How many recent runs to show.")] = 8,
) -> int:
    """Show what is live in each environment, and how recent runs went.

    The live model is what the endpoint itself reports; where the release ledger or the registry say something else,
    that is told. Works without a Prefect server, then without runs.

    Examples: `ahc status`, `ahc status --json`, `ahc status --runs 30`
    """
    settings = get_settings()
    environments = environment_facts(settings)
    try:
        with server(settings) as client:
            recent = facts(client, recent_runs(client, limit=runs)) if runs else []
        unreachable = None
    except ServerUnreachable as error:
        recent, unreachable = [], error
    if as_json:
        show.show_json(
            {"environments": environments, "runs": recent, "server": str(unreachable) if unreachable else "running"}
        )
    else:
        _print_environments(environments)
        show.show("")
        _print_runs(recent, unreachable)
    return 0


def environment_facts(settings: Settings) -> list[EnvironmentFacts]:
    """All environments in the order in which a release passes them, asked at the same time."""
    from infra.backend import release_target

    names = environment_names(settings.environments)
    events = backend(settings).ledger()
    with ThreadPoolExecutor(max_workers=max(1, 2 * len(names))) as pool:
        last_words = pool.map(lambda name: _last_word(events, name), names)
        statuses = list(pool.map(lambda name: release_target(name, settings).endpoint().status(), names))
        champions = backend(settings).champions(names)
        return [
            _environment(status, champions[status.environment], *last)
            for status, last in zip(statuses, last_words, strict=True)
        ]


def _last_word(events: ReleaseLedger, environment: str) -> tuple[ReleaseEvent | None, str]:
    try:
        return last_word(events, environment), ""
    except LedgerBroken as error:
        return None, str(error)


def _environment(
    status: EndpointStatus, champions: tuple[RegisteredModel, ...], last: ReleaseEvent | None, ledger_problem: str
) -> EnvironmentFacts:
    live = status.live
    same_name = [model for model in champions if live is not None and model.name == live.name]
    champion = next(iter(same_name or champions), None)
    texts = [registry_difference(status, champion)] if ledger_problem else differences(status, last, champion)
    return EnvironmentFacts(
        endpoint=status,
        champion=champion,
        last_event=last,
        ledger_problem=ledger_problem,
        differences=tuple(filter(None, texts)),
        released=_released(status, last, champion),
    )


def _released(status: EndpointStatus, last: ReleaseEvent | None, champion: RegisteredModel | None) -> datetime | None:
    """When what is live took over: the ledger knows, unless a repair wrote its last word."""
    if last and last.kind != "repaired" and status.live in (None, last.model):
        return last.at
    if champion is None or (status.live and champion.digest != status.live.digest):
        return None
    try:
        return datetime.strptime(champion.tags.get(f"released.{status.environment}", ""), RELEASED).replace(tzinfo=UTC)
    except ValueError:
        return None


def _print_environments(environments: list[EnvironmentFacts]) -> None:
    rows = [
        (
            Text(item.name, style="bold"),
            show.marked(item.endpoint.state, STATE_STYLES[item.endpoint.state]),
            _label(item.endpoint.live),
            Text(f"v{item.endpoint.previous.version}" if item.endpoint.previous else "-", style=show.QUIET),
            show.ago(item.released),
            item.endpoint.url,
        )
        for item in environments
    ]
    show.show(show.table(("environment", "endpoint", "live", "previous", "released", "url"), rows))
    for item in environments:
        if item.endpoint.state == "unhealthy":
            show.show(Text(f"  {item.name}: {item.endpoint.detail}", style=show.WAITING))
        elif item.endpoint.state == "stopped" and item.champion:
            was = f"{item.champion.label} was released here; `ahc up` serves it again"
            show.show(Text(f"  {item.name}: {was}", style=show.QUIET))
        for line in item.differences:
            show.show(Text(f"  {item.name}: {line}", style=show.WAITING))
        if item.ledger_problem:
            text = f"{item.ledger_problem} See `ahc ledger {item.name}` and {runbook('LedgerBroken')}."
            show.show(Text(f"  {item.name}: {text}", style=show.BAD))


def _label(model: LiveModel | None) -> Text:
    if model is None:
        return Text("-", style=show.QUIET)
    return Text.assemble(f"{model.label} ", (model.digest[:12], show.QUIET))


def _print_runs(recent: list[RunFacts], unreachable: ServerUnreachable | None) -> None:
    if unreachable is not None:
        show.show(Text(f"{unreachable}", style=show.WAITING), Text(f"  {unreachable.next_step}", style=show.QUIET))
        return
    if not recent:
        show.show(Text("No run yet: start one with `ahc up`.", style=show.QUIET))
        return
    rows = [
        (
            Text(run.id[:8], style=show.QUIET),
            run.name,
            show.marked(run.state_name, show.state_style(run.state_type, run.state_name)),
            show.ago(run.started or run.created),
            show.duration(run.seconds),
        )
        for run in recent
    ]
    show.show(show.table(("run", "name", "state", "started", "took"), rows))
    for run in recent:
        if line := problem(run):
            show.show(Text(f"  {run.id[:8]}: {line}", style=show.WAITING))


def problem(run: RunFacts) -> str:
    """What a run needs of a person, in one line; empty where nothing."""
    if run.state_type == "PAUSED":
        return f"waits for a decision: ahc approve {run.id[:8]} --by YOU --reason TEXT (or ahc reject)"
    if run.state_name == "Late":
        return "no worker takes it: is `ahc up` running?"
    if run.state_type not in {"FAILED", "CRASHED"}:
        return ""
    message = next(iter(run.message.splitlines()), "") or run.state_name
    section = f" ({runbook(run.state_name)})" if run.state_name in ERRORS else ""
    return f"{message[:160]}{section} → ahc why {run.id[:8]}"
