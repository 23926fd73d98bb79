"""May this version be released to this environment, and is there room for it?"""

from collections.abc import Sequence
from datetime import UTC, datetime

from prefect import get_run_logger
from pydantic import Field

from infra.backend import backend, release_target
from infra.config.environments import Environment
from infra.errors import ConfigurationError, PlatformUnhealthy, ReleaseHeld
from infra.ports import LiveModel, RegisteredModel
from infra.releases.ledger import ReleaseEvent
from infra.runs.correlation import root_run
from infra.settings import get_settings
from model.bundle.read import open_bundle
from tasks.framework.run_starter import UNKNOWN, started_by
from tasks.framework.stage import Result, stage
from tasks.release.gate_rules import Hold, KnownEvents, holds, lineage_gaps, live_since, release_command
from tasks.release.ledger_note import note


class Releasable(Result):
    """A version that may be released to an environment, with its verified bytes."""

    model: RegisteredModel
    bundle: str
    already_live: bool
    instead_of: LiveModel | None = Field(description="What the environment ran when this was checked.")


@stage("Check version", "check {name} v{version} for {environment.name}", always=True)
def check_version(
    name: str, version: int, environment: Environment, *, by: str = "", force: bool = False, reason: str = ""
) -> Releasable:
    """Verify verdict, lineage, digest and the environment that must come first, and every gate of this one.

    Args:
        name: Name of the model.
        version: Its registered version.
        environment: Where it is to go live.
        by: Who starts the release; where nobody is named, who started the run.
        force: Pass freeze windows, soak time, age, and what was rolled back or rejected here; nothing else.
        reason: Why; needed with `force`.

    Raises:
        ModelNotFound: No such version.
        BundleCorrupt: The registry's bytes are not those of the digest.
        ConfigurationError: The version may not go here, or not yet, or nobody says why or who.
        ReleaseHeld: A gate says not now; names each, until when, and the command that passes it.
    """
    settings = get_settings()
    by = _who(by, environment)
    if force and not reason.strip():
        raise ConfigurationError("`force` needs a reason.", next_step='Say why: `-p force=true -p reason="..."`.')
    model, bundle = _releasable(name, version, lineage=True)
    live = release_target(environment.name, settings).endpoint().status().live
    _require_first(environment.gates.requires, environment, model)
    if live is not None and live.digest == model.digest:
        return Releasable(model=model, bundle=bundle, already_live=True, instead_of=live)
    facts = KnownEvents(
        now=datetime.now(UTC),
        live=live,
        events=_events(environment.name),
        required_since=_required_since(environment, model),
    )
    obstacles = holds(model, environment, facts)
    if obstacles and not force:
        raise _release_held(model, environment, obstacles)
    for hold in obstacles:
        get_run_logger().warning("%s passes by force (%s): %s.", model.label, reason.strip(), hold)
    note(
        environment.name,
        "started",
        model,
        by=by,
        reason=reason.strip(),
        details={"forced": [hold.gate for hold in obstacles]} if obstacles else None,
    )
    return Releasable(model=model, bundle=bundle, already_live=False, instead_of=live)


@stage("Check version", "check {name} v{version}, to go back to in {environment.name}", always=True)
def check_return(name: str, version: int, environment: Environment) -> Releasable:
    """Verify verdict and digest of a version to go back to; no gate stands between users and a version that works.

    Raises:
        ModelNotFound: No such version.
        BundleCorrupt: The registry's bytes are not those of the digest.
        ConfigurationError: It was never good enough to be released.
    """
    model, bundle = _releasable(name, version, lineage=False)
    live = release_target(environment.name, get_settings()).endpoint().status().live
    already = live is not None and live.digest == model.digest
    return Releasable(model=model, bundle=bundle, already_live=already, instead_of=live)


@stage("Preflight", "preflight of {model.name} v{model.version} in {environment.name}", always=True)
def preflight(model: RegisteredModel, environment: Environment) -> Result:
    """Whether a candidate can be deployed there now: room, quota, image, keys, and all that it stands on.

    Raises:
        PlatformUnhealthy: Names everything that is in the way, each with its fix; nothing was created.
    """
    problems = release_target(environment.name, get_settings()).endpoint().preflight()
    if problems:
        raise PlatformUnhealthy(
            f"{model.label} can't be deployed to {environment.name} now. {' '.join(problems)}",
            next_step="Mend what is named, then rerun: nothing was created.",
        )
    return Result()


def _who(by: str, environment: Environment) -> str:
    who = started_by(by)
    if environment.gates.four_eyes and who == UNKNOWN:
        raise ConfigurationError(
            f"In {environment.name} who starts a release may not approve it, and this run doesn't say who started it.",
            next_step="Name yourself in the parameter `by` of the run.",
        )
    return who


def _releasable(name: str, version: int, *, lineage: bool) -> tuple[RegisteredModel, str]:
    """A version whose verdict, bytes and, where it matters, lineage are in order, with its folder."""
    settings = get_settings()
    models = backend(settings).registry()
    model = models.get(name, version)
    if model.tags.get("verdict") != "promote":
        raise ConfigurationError(
            f"{model.label} has the verdict `{model.tags.get('verdict')}`: {model.tags.get('verdict_reason')}",
            next_step="Only versions with the verdict `promote` are released.",
        )
    bundle = models.download(model, settings.path("verified"))
    opened = open_bundle(bundle, digest=model.digest)
    if lineage and (gaps := lineage_gaps(model, opened.lineage)):
        raise ConfigurationError(
            f"The lineage of {model.label} is incomplete: {'; '.join(gaps)}.",
            next_step="Nobody can tell what it was made from: train and register it again with `ahc trigger`.",
        )
    return model, str(bundle)


def _require_first(first: str | None, environment: Environment, model: RegisteredModel) -> None:
    if first and not _is_live(first, model):
        raise ConfigurationError(
            f"{model.label} is not live in {first}, which {environment.name} requires.",
            next_step=f"Release it there first: `{release_command(first, model.name, model.version)}`.",
        )


def _required_since(environment: Environment, model: RegisteredModel) -> datetime | None:
    first = environment.gates.requires
    return live_since(_events(first), model.digest) if first else None


def _events(environment: str) -> tuple[ReleaseEvent, ...]:
    """What the ledger tells of an environment. A broken one is said, and stops no release: users may need it."""
    history = backend(get_settings()).ledger().history(environment)
    for fault in history.faults:
        get_run_logger().warning("The release ledger of %s is broken: %s.", environment, fault)
    return history.events


def _release_held(model: RegisteredModel, environment: Environment, obstacles: Sequence[Hold]) -> ReleaseHeld:
    command = release_command(environment.name, model.name, model.version)
    moments = [hold.until for hold in obstacles]
    opens = max((moment for moment in moments if moment), default=None) if all(moments) else None
    wait = f"Wait until {opens:%Y-%m-%d %H:%M %Z}, then `ahc rerun {root_run()}`; or pass it" if opens else "Pass it"
    return ReleaseHeld(
        f"{model.label} doesn't go live in {environment.name} now: {'; '.join(map(str, obstacles))}.",
        next_step=f'{wait}, where that is meant, with `{command} -p force=true -p reason="..."`.',
    )


def _is_live(environment: str, model: RegisteredModel) -> bool:
    live = release_target(environment, get_settings()).endpoint().status().live
    return live is not None and live.digest == model.digest
