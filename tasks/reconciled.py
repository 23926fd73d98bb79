"""The outcome of a reconciliation in one value, as the run shows it."""

from infra.ports import Frozen
from tasks.artifacts import create_markdown_artifact, table
from tasks.due import Decision
from tasks.reconciliation import Due, Releases, Started
from tasks.repair import Repaired


class Reconciled(Frozen):
    """What a reconciliation found and did."""

    decisions: tuple[Decision, ...]
    started: tuple[Started, ...]
    differences: dict[str, tuple[str, ...]]
    repaired: tuple[str, ...]


def show_reconciliation(found: Due, releases: Releases, repaired: Repaired) -> Reconciled:
    """Publish, per environment, what was due and what became of it; answers the same."""
    runs = {item.environment: item for item in releases.started}
    rows: list[tuple[object, ...]] = [
        (
            item.environment,
            f"{item.model.label}, run {runs[item.environment].run[:8]}" if item.model else "nothing",
            item.why,
            " ".join(found.differences[item.environment]) or "nothing",
        )
        for item in found.decisions
    ]
    started = ", ".join(f"{item.version} to {item.environment}" for item in releases.started)
    create_markdown_artifact(
        key="reconciliation",
        description=f"Starts {started}" if started else "Nothing is due",
        markdown="# Reconciliation\n\n"
        + table(("environment", "is due", "why", "differs"), rows)
        + "".join(f"\n\nRepaired: {sentence}." for sentence in repaired.done),
    )
    return Reconciled(
        decisions=found.decisions,
        started=releases.started,
        differences={name: lines for name, lines in found.differences.items() if lines},
        repaired=repaired.done,
    )
