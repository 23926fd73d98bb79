"""Reconciliation: registry and environments are compared, and what is due is released."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

from prefect import get_run_logger
from pydantic import Field

from infra.backend import backend, release_target
from infra.config.environments import environment_names, load_environment
from infra.errors import ConfigurationError, ModelNotFound, PlatformError
from infra.ports import EndpointStatus, Notice
from infra.releases.ledger import SERVING
from infra.releases.record_agreement import differences
from infra.settings import get_settings
from model.values import Frozen
from tasks.framework.artifacts import create_markdown_artifact, table
from tasks.framework.stage import Result, stage
from tasks.reconciliation.due_rules import Decision, Situation, due, triggered_tag
from tasks.reconciliation.repair import Repaired
from tasks.release.approval import note_expired
from tasks.release.release_runs import expired_releases, start_release, under_way

TRIES: Final = 5
"""So often a notice may be taken before it is put aside."""


class Taken(Result):
    """Notices of registered models that this run has now."""

    notices: tuple[Notice, ...]


class Due(Result):
    """What becomes of each environment."""

    decisions: tuple[Decision, ...]
    differences: dict[str, tuple[str, ...]] = Field(
        description="By environment, where registry and ledger say something else than its endpoint."
    )


class Started(Frozen):
    """A release that the triggers started."""

    environment: str
    version: str
    run: str = Field(description="Id of its flow run.")


class Releases(Result):
    """What a reconciliation started."""

    started: tuple[Started, ...]


@stage("Take notices", "take notices of registered models", always=True)
def take_notices() -> Taken:
    """What Azure ML told since the last time; nothing where nobody tells."""
    queue = backend(get_settings()).notices()
    return Taken(notices=tuple(queue.take()) if queue else ())


@stage("End notices", "end the notices", always=True)
def end_notices(taken: Taken) -> Result:
    """Everything that was due when they were taken is started: they did their work.

    One about a version that the registry doesn't have comes back in some minutes, and is put aside in the end.
    """
    queue = backend(get_settings()).notices()
    for notice in taken.notices if queue else ():
        assert queue is not None
        if _is_registered(notice):
            queue.end(notice)
        elif notice.taken >= TRIES:
            queue.put_aside(notice)
            get_run_logger().warning(
                "A notice is about no version of the registry after %d tries, and is put aside: %s",
                notice.taken,
                notice.text[:500],
            )
    return Result()


def _is_registered(notice: Notice) -> bool:
    if notice.name is None or notice.version is None:
        return False
    try:
        backend(get_settings()).registry().get(notice.name, notice.version)
    except ModelNotFound:
        return False
    return True


@stage("Find what is due", "find out what is due", always=True)
def find_due() -> Due:
    """Ask registry, endpoints, ledger and Prefect what each environment should get now."""
    settings = get_settings()
    names = environment_names(settings.environments)
    with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        situations = list(pool.map(_situation, names))
    models = backend(settings).registry()
    versions = [model for name in models.names() for model in models.versions(name)]
    promoted = [model for model in versions if model.tags.get("verdict") == "promote"]
    decisions = due(promoted, situations, under_way(), datetime.now(UTC))
    for decision in decisions:
        get_run_logger().info("%s: %s.", decision.environment, decision.why)
    return Due(decisions=tuple(decisions), differences={item.environment.name: _differing(item) for item in situations})


def _differing(place: Situation) -> tuple[str, ...]:
    live, name = place.endpoint.live, place.environment.name
    champion = backend(get_settings()).registry().champion(live.name, name) if live else None
    event = next((event for event in reversed(place.events) if event.kind in SERVING), None)
    lines = tuple(differences(place.endpoint, event, champion))
    for line in lines:
        get_run_logger().warning("%s: %s", name, line)
    return lines


def _situation(name: str) -> Situation:
    """How an environment is; one that can't be asked keeps nobody else waiting."""
    settings = get_settings()
    environment = load_environment(name, settings.environments)
    try:
        return Situation(
            environment=environment,
            endpoint=release_target(name, settings).endpoint().status(),
            events=tuple(backend(settings).ledger().events(name)),
        )
    except PlatformError as error:
        unknown = EndpointStatus(environment=name, url="", state="unhealthy", detail=str(error))
        return Situation(environment=environment, endpoint=unknown)


@stage("Start releases", "start the releases that are due", always=True)
def start_releases(due_releases: Due) -> Releases:
    """Start each as a run of its own, once, and mark the version: the triggers don't do it again.

    Raises:
        ConfigurationError: An environment has no deployment of the release flow; the others' releases are started.
    """
    started, problems = [], []
    for decision in due_releases.decisions:
        if decision.model is None:
            continue
        try:
            run = start_release(decision.model, decision.environment)
        except ConfigurationError as error:
            problems.append(error)
            continue
        backend(get_settings()).registry().tag(decision.model, {triggered_tag(decision.environment): run})
        get_run_logger().info("Run %s releases %s to %s.", run[:8], decision.model.label, decision.environment)
        started.append(Started(environment=decision.environment, version=decision.model.label, run=run))
    if problems:
        raise problems[0]
    return Releases(started=tuple(started))


@stage("Note expired releases", "note releases on which nobody decided in time", always=True)
def note_expired_releases() -> Result:
    """Prefect ends their runs without running them: the ledger hears of it here."""
    for run in expired_releases():
        if note_expired(run):
            get_run_logger().info("%s: nobody decided in time.", run.name)
    return Result()


class Reconciled(Frozen):
    """What a reconciliation found and did."""

    decisions: tuple[Decision, ...]
    started: tuple[Started, ...]
    differences: dict[str, tuple[str, ...]]
    repaired: tuple[str, ...]


def show_reconciliation(due_releases: Due, releases: Releases, repaired: Repaired) -> Reconciled:
    """Publish, per environment, what was due and what became of it; answers the same."""
    runs = {item.environment: item for item in releases.started}
    rows: list[tuple[object, ...]] = [
        (
            item.environment,
            f"{item.model.label}, run {runs[item.environment].run[:8]}" if item.model else "nothing",
            item.why,
            " ".join(due_releases.differences[item.environment]) or "nothing",
        )
        for item in due_releases.decisions
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
        decisions=due_releases.decisions,
        started=releases.started,
        differences={name: lines for name, lines in due_releases.differences.items() if lines},
        repaired=repaired.done,
    )
