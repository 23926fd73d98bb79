"""Repair: what an endpoint runs is the truth; registry and ledger are made to say the same."""

from collections.abc import Iterator
from typing import Final

from prefect import get_run_logger
from pydantic import Field

from infra.backend import backend, release_target
from infra.config.environments import environment_names
from infra.errors import NotProvisioned, PlatformError
from infra.releases.ledger import last_word
from infra.releases.record_agreement import ledger_difference, registry_difference
from infra.settings import get_settings
from tasks.framework.stage import Result, stage
from tasks.release.ledger_note import note

BY: Final = "repair"
"""Who corrects the ledger."""


class Repaired(Result):
    """What was done."""

    done: tuple[str, ...] = Field(default=(), description="A sentence each.")


@stage("Repair", "bring records and endpoints together", always=True)
def repair_environments() -> Repaired:
    """Start endpoints that are stopped, then let registry and ledger say what each runs.

    Raises:
        PlatformError: The first of an environment that couldn't be repaired, such as LedgerBroken; the others are.
    """
    done, problems = [], []
    for name in environment_names(get_settings().environments):
        try:
            for sentence in _repair(name):
                get_run_logger().info("%s: %s.", name, sentence)
                done.append(f"{name}: {sentence}")
        except NotProvisioned:
            continue
        except PlatformError as error:
            problems.append(error)
    if problems:
        raise problems[0]
    return Repaired(done=tuple(done))


def _repair(name: str) -> Iterator[str]:
    settings = get_settings()
    place, models, events = (
        release_target(name, settings).endpoint(),
        backend(settings).registry(),
        backend(settings).ledger(),
    )
    status, entry = place.status(), last_word(events, name)
    if status.state == "stopped" and entry is not None:
        status = place.start()
        yield f"its endpoint was stopped, and is {status.state}"
    live = status.live
    if live is None:
        return
    if registry_difference(status, models.champion(live.name, name)):
        models.set_champion(models.get(live.name, live.version), name)
        yield f"the registry names {live.label} as its champion"
    if ledger_difference(status, entry):
        before = entry.model.label if entry else "nothing"
        note(name, "repaired", live, by=BY, reason=f"the endpoint runs it; the ledger said {before}")
        yield f"the ledger says that it runs {live.label}"
