"""The outcome of a reconciliation in one value, as the run shows it."""

from infra.ports import Frozen
from tasks.artifacts import create_markdown_artifact, table
from tasks.due import Decision
from tasks.reconciliation import Due, Releases, Started


class Reconciled(Frozen):
    """What a reconciliation found and did."""

    decisions: tuple[Decision, ...]
    started: tuple[Started, ...]


def show_reconciliation(found: Due, releases: Releases) -> Reconciled:
    """Publish, per environment, what was due and what became of it; answers the same."""
    runs = {item.environment: item for item in releases.started}
    rows: list[tuple[object, ...]] = [
        (
            item.environment,
            f"{item.model.label}, run {runs[item.environment].run[:8]}" if item.model else "nothing",
            item.why,
        )
        for item in found.decisions
    ]
    started = ", ".join(f"{item.version} to {item.environment}" for item in releases.started)
    create_markdown_artifact(
        key="reconciliation",
        description=f"Starts {started}" if started else "Nothing is due",
        markdown="# Reconciliation\n\n" + table(("environment", "is due", "why"), rows),
    )
    return Reconciled(decisions=found.decisions, started=releases.started)
