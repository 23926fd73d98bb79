"""Rollback: the version before takes over again, and the bad one is marked."""

from pathlib import Path

from prefect import get_run_logger

from infra.backend import backend, release_target
from infra.config.environments import Environment
from infra.errors import NothingToRollBackTo, PlatformError, SmokeTestFailed
from infra.ports import Candidate, Endpoint, LiveModel, RunningVersion
from infra.settings import get_settings
from tasks.framework.run_starter import started_by
from tasks.framework.stage import Result, stage
from tasks.release.check_version import Releasable
from tasks.release.deploy_and_switch import Live, confirm_live, name_champion
from tasks.release.ledger_note import note
from tasks.release.smoke_test import wrong_golden_answers


class Before(Result):
    """What an environment ran before its live version; None where the endpoint couldn't tell."""

    model: LiveModel | None


@stage("Version before", "find what {environment.name} ran before")
def version_before(environment: Environment) -> Before:
    """Which version is to come back. A rerun is told the same, so it doesn't roll back what came back."""
    return Before(model=release_target(environment.name, get_settings()).endpoint().status().previous)


@stage("Roll back", "roll back {environment.name}", always=True)
def roll_back(environment: Environment, before: LiveModel | None, reason: str, by: str) -> Live:
    """The warm previous version shows its golden answers and takes over; the bad one is marked.

    No trigger releases the bad one again.

    Args:
        environment: Where.
        before: What is to come back; nothing is switched where it has already.
        reason: Why; recorded on the bad version.
        by: Who or what asks for it; where nobody is named, who started the run.

    Raises:
        NothingToRollBackTo: The environment has no previous version, or another one than `before` by now.
        SmokeTestFailed: The previous version answers wrong; nothing was switched.
    """
    target = release_target(environment.name, get_settings()).endpoint()
    live = confirm_live(environment, _bring_back(target, before, environment).digest)
    _record(live, target.status().previous, environment, reason, by)
    return live


@stage("Go back", "go back to {candidate.model.name} v{candidate.model.version} in {environment.name}", always=True)
def go_back(candidate: Candidate, checked: Releasable, environment: Environment, reason: str, by: str) -> Live:
    """A named version takes over; the bad one is marked. Raises as `switch_traffic` does."""
    target = release_target(environment.name, get_settings()).endpoint()
    target.switch(candidate)
    live = confirm_live(environment, checked.model.digest)
    _record(live, target.status().previous, environment, reason, by)
    return live


def _record(live: Live, bad: LiveModel | None, environment: Environment, reason: str, by: str) -> None:
    """Mark the bad version, and let registry and ledger say what serves again. Repeating it does no harm."""
    models = backend(get_settings()).registry()
    if bad is not None and bad.digest != live.model.digest:
        models.tag(models.get(bad.name, bad.version), {f"rolled_back.{environment.name}": reason or "no reason given"})
    good = models.get(live.model.name, live.model.version)
    name_champion(good, environment)
    details = {"instead_of": bad.model_dump()} if bad is not None else None
    note(environment.name, "rolled-back", live.model, by=started_by(by), reason=reason, details=details)
    get_run_logger().info("%s runs %s again.", environment.name, good.label)


def _bring_back(target: Endpoint, before: LiveModel | None, environment: Environment) -> LiveModel:
    # What the endpoint runs, not what answers in time: on a busy machine that may be nothing.
    running = {version.role: version for version in target.versions()}
    if before is not None and "live" in running and running["live"].model.digest == before.digest:
        return running["live"].model
    previous = target.status().previous
    if before is not None and previous is not None and previous.digest != before.digest:
        raise NothingToRollBackTo(
            f"{target.environment} was changed since: its version before is no longer {before.label}.",
            next_step="Look at `ahc status`, then start a rollback anew.",
        )
    if "previous" in running:
        _try(running["previous"], environment)
    return target.rollback()


def _try(previous: RunningVersion, environment: Environment) -> None:
    """Refuse to bring back what doesn't answer as its own bundle says."""
    model = previous.model
    try:
        bundle = _verified_bundle(model)
    except PlatformError as error:
        # Users are hurt now: that the registry is away must not keep them waiting.
        get_run_logger().warning("%s takes over without a smoke test: %s", model.label, error)
        return
    if problems := wrong_golden_answers(previous, bundle, environment):
        raise SmokeTestFailed(
            f"The version before in {environment.name}, {model.label}: {'; '.join(problems)}.",
            next_step=f"Nothing was switched. Name another version: `ahc rollback {environment.name} --to VERSION`.",
        )


def _verified_bundle(model: LiveModel) -> Path:
    """Its folder on this machine; from its release, or fetched again."""
    folder = get_settings().path("verified")
    bundle = folder / model.digest
    if bundle.is_dir():
        return bundle
    models = backend(get_settings()).registry()
    return models.download(models.get(model.name, model.version), folder)
