"""Release: bring a registered version into an environment, without losing a request or an answer being wrong."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from prefect import get_run_logger
from pydantic import Field

from infra.backend import endpoint, ledger, registry
from infra.correlation import root_run
from infra.environments import Environment
from infra.errors import CandidateFailed, ConfigurationError, EndpointUnreachable, ReleaseHeld, SmokeTestFailed
from infra.ledger import ReleaseEvent, last_word
from infra.ports import Candidate, LiveModel, RegisteredModel
from infra.settings import get_settings
from model.bundle import open_bundle
from tasks.artifacts import create_link_artifact
from tasks.events import model_released
from tasks.gates import Hold, Known, holds, lineage_gaps, live_since, release_command
from tasks.ledger import note
from tasks.stage import Result, stage
from tasks.started_by import UNKNOWN, started_by

NAME_SECONDS: Final = 30.0
"""So long may a name lead to the version before: answers to the question for it are kept for a while."""


class Releasable(Result):
    """A version that may be released to an environment, with its verified bytes."""

    model: RegisteredModel
    bundle: str
    already_live: bool
    instead_of: LiveModel | None = Field(description="What the environment ran when this was checked.")


class Deployed(Result):
    """A candidate that runs beside the live version."""

    candidate: Candidate


class Live(Result):
    """What an environment's endpoint runs now, as it reports itself."""

    environment: str
    url: str
    model: LiveModel
    since: str = Field(default="", description="When it was released, where that was before this run.")


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
    live = endpoint(environment.name, settings).status().live
    _require_first(environment.gates.requires, environment, model)
    if live is not None and live.digest == model.digest:
        return Releasable(model=model, bundle=bundle, already_live=True, instead_of=live)
    known = Known(
        now=datetime.now(UTC),
        live=live,
        events=_events(environment.name),
        required_since=_required_since(environment, model),
    )
    held = holds(model, environment, known)
    if held and not force:
        raise _held(model, environment, held)
    for hold in held:
        get_run_logger().warning("%s passes by force (%s): %s.", model.label, reason.strip(), hold)
    note(
        environment.name,
        "started",
        model,
        by=by,
        reason=reason.strip(),
        details={"forced": [hold.gate for hold in held]} if held else None,
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
    live = endpoint(environment.name, get_settings()).status().live
    already = live is not None and live.digest == model.digest
    return Releasable(model=model, bundle=bundle, already_live=already, instead_of=live)


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
    models = registry(settings)
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
    history = ledger(get_settings()).history(environment)
    for fault in history.faults:
        get_run_logger().warning("The release ledger of %s is broken: %s.", environment, fault)
    return history.events


def _held(model: RegisteredModel, environment: Environment, held: Sequence[Hold]) -> ReleaseHeld:
    command = release_command(environment.name, model.name, model.version)
    moments = [hold.until for hold in held]
    opens = max((moment for moment in moments if moment), default=None) if all(moments) else None
    wait = f"Wait until {opens:%Y-%m-%d %H:%M %Z}, then `ahc rerun {root_run()}`; or pass it" if opens else "Pass it"
    return ReleaseHeld(
        f"{model.label} doesn't go live in {environment.name} now: {'; '.join(map(str, held))}.",
        next_step=f'{wait}, where that is meant, with `{command} -p force=true -p reason="..."`.',
    )


def _is_live(environment: str, model: RegisteredModel) -> bool:
    live = endpoint(environment, get_settings()).status().live
    return live is not None and live.digest == model.digest


@stage(
    "Deploy candidate",
    "deploy {checked.model.name} v{checked.model.version} beside the live one in {environment.name}",
    always=True,
)
def deploy_candidate(checked: Releasable, environment: Environment) -> Deployed:
    """Start the version where it takes no traffic yet.

    Raises:
        CandidateFailed: It doesn't start.
        ReleaseHeld: The environment runs another version than when this one was checked.
    """
    model, target = checked.model, endpoint(environment.name, get_settings())
    _require_unchanged(target.status().live, checked, environment)
    try:
        candidate = target.deploy(Path(checked.bundle), model.as_live)
    except CandidateFailed as error:
        note(environment.name, "failed", model, by="deployment", reason=str(error))
        raise
    get_run_logger().info("%s runs at %s and takes no traffic yet.", model.label, candidate.url)
    return Deployed(candidate=candidate)


@stage("Switch traffic", "switch {environment.name} to {candidate.model.name} v{candidate.model.version}", always=True)
def switch_traffic(candidate: Candidate, checked: Releasable, environment: Environment, by: str) -> Live:
    """Let the candidate take over, ask the endpoint what it runs now, and record it.

    Raises:
        ReleaseHeld: The environment was changed since this version was checked; the candidate is discarded.
        SmokeTestFailed: The endpoint reports another digest than the one that was released.
    """
    target = endpoint(environment.name, get_settings())
    try:
        _require_unchanged(target.status().live, checked, environment)
    except ReleaseHeld:
        target.discard(candidate)
        raise
    target.switch(candidate)
    live = verified(environment, checked.model.digest)
    _record(live, checked.model, environment, by)
    create_link_artifact(
        key=f"endpoint-{environment.name}",
        link=live.url,
        link_text=live.url,
        description=f"{checked.model.label} is live here",
    )
    return live


@stage("Verify live", "verify {environment.name} runs {model.name} v{model.version}", always=True)
def verify_live(environment: Environment, model: RegisteredModel, by: str) -> Live:
    """Ask the endpoint of an environment where this version is live already.

    Where a release was killed between its switch and the record of it, the record is made up for.
    """
    since = model.tags.get(f"released.{environment.name}", "an unknown time")
    live = verified(environment, model.digest)
    said = last_word(ledger(get_settings()), environment.name)
    if said is None or said.model.digest != model.digest:
        _record(live, model, environment, by)
    return live.model_copy(update={"since": since})


def _require_unchanged(live: LiveModel | None, checked: Releasable, environment: Environment) -> None:
    """Refuse to replace another version than the one that this release was checked against."""
    ours, expected = (model.digest if model else None for model in (live, checked.instead_of))
    if ours not in (expected, checked.model.digest):
        now = live.label if live else "nothing"
        raise ReleaseHeld(
            f"{environment.name} was changed while {checked.model.label} was on its way: it runs {now} now.",
            next_step="Rerun this release with `ahc rerun`, which checks anew, if it is still wanted.",
        )


def _record(live: Live, model: RegisteredModel, environment: Environment, by: str) -> None:
    """Ledger and registry say what the endpoint runs, and whoever waits for it hears it. Repeating it does no harm."""
    note(environment.name, "switched", model, by=started_by(by))
    name_champion(model, environment)
    model_released(live.model, environment.name)


def name_champion(model: RegisteredModel, environment: Environment) -> None:
    """Let the registry say that this version is live there, and since when."""
    models = registry(get_settings())
    models.set_champion(model, environment.name)
    models.tag(model, {f"released.{environment.name}": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"})


def verified(environment: Environment, digest: str) -> Live:
    """What the endpoint reports, if it is `digest`.

    Raises:
        SmokeTestFailed: It is another one, and stays it.
        EndpointUnreachable: It doesn't answer now.
    """
    target = endpoint(environment.name, get_settings())
    status = target.status()
    deadline = monotonic() + NAME_SECONDS
    while status.live is not None and status.live.digest != digest and monotonic() < deadline:
        sleep(1)
        status = target.status()
    next_step = f"Run `ahc status`, then `ahc rollback {environment.name}`."
    if status.live is None:
        raise EndpointUnreachable(
            f"{environment.name} should run {digest[:12]} but is {status.state}. {status.detail}", next_step=next_step
        )
    if status.live.digest != digest:
        raise SmokeTestFailed(
            f"{environment.name} should run {digest[:12]} but reports {status.live.digest[:12]}.", next_step=next_step
        )
    return Live(environment=environment.name, url=status.url, model=status.live)
