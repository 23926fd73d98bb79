"""`ahc ledger`: what happened to which version in which environment, and whether somebody changed the record of it."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from deployments.display import colours as show
from infra.config.environments import environment_names, load_environment
from infra.errors import LedgerBroken
from infra.releases.ledger import EventKind, ReleaseEvent
from infra.settings import get_settings

STYLES: dict[EventKind, str] = {
    "switched": show.GOOD,
    "settled": show.GOOD,
    "approved": show.GOOD,
    "started": show.QUIET,
    "repaired": show.WAITING,
    "expired": show.WAITING,
    "rolled-back": show.WAITING,
    "rejected": show.BAD,
    "failed": show.BAD,
    "aborted": show.BAD,
}


def ledger(
    environment: Annotated[str, typer.Argument(metavar="[ENV]", help="Only this environment.")] = "",
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="The last N events.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="The same facts as JSON.")] = False,
) -> int:
    """Show the release ledger, newest last, and check all of it.

    Exits with 51 (LedgerBroken) where a file of it was edited, removed or added; what is whole is shown all the same.

    Examples: `ahc ledger`, `ahc ledger production --limit 100`, `ahc ledger --json`
    """
    from infra.backend import backend

    settings = get_settings()
    if environment:
        names = [load_environment(environment, settings.environments).name]
    else:
        names = environment_names(settings.environments)
    histories = [backend(settings).ledger().history(name) for name in names]
    events = sorted((event for history in histories for event in history.events), key=lambda event: event.at)
    problems = [history.problem for history in histories if history.problem]
    if as_json:
        show.show_json({"events": events[-limit:], "total": len(events), "problems": problems})
    else:
        _print(events[-limit:])
        if len(events) > limit:
            command = " ".join(["ahc ledger", *filter(None, [environment]), f"--limit {len(events)}"])
            show.show(Text(f"  {len(events) - limit} earlier: `{command}`", style=show.QUIET))
    if problems:
        raise LedgerBroken(" ".join(problems))
    return 0


def _print(events: Sequence[ReleaseEvent]) -> None:
    if not events:
        show.show(Text("No event yet: each release writes some.", style=show.QUIET))
        return
    rows = [
        (
            f"{event.at:%Y-%m-%d %H:%M:%S}",
            Text(event.environment, style="bold"),
            Text(str(event.sequence), style=show.QUIET),
            show.marked(event.kind, STYLES[event.kind]),
            Text.assemble(f"{event.model.label} ", (event.model.digest[:12], show.QUIET)),
            event.by,
            Text(event.run[:8], style=show.QUIET),
            event.reason,
        )
        for event in events
    ]
    show.show(show.table(("UTC", "environment", "#", "event", "model", "by", "run", "reason"), rows))
