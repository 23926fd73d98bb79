"""Release: bring a registered version into an environment, without losing a request or an answer being wrong."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from prefect import get_run_logger
from pydantic import Field

from infra.backend import backend, release_target
from infra.config.environments import Environment
from infra.errors import CandidateFailed, EndpointUnreachable, ReleaseHeld, SmokeTestFailed
from infra.ports import Candidate, LiveModel, RegisteredModel
from infra.releases.ledger import last_word
from infra.settings import get_settings
from infra.waiting import polls
from tasks.framework.artifacts import create_link_artifact
from tasks.framework.events import model_released
from tasks.framework.run_starter import started_by
from tasks.framework.stage import Result, stage
from tasks.release.check_version import Releasable
from tasks.release.ledger_note import note

NAME_SECONDS: Final = 30.0
"""DNS answers are cached: the name may lead to the previous version for so long."""


class Deployed(Result):
    """A candidate that runs beside the live version."""

    candidate: Candidate


class Live(Result):
    """What an environment's endpoint runs now, as it reports itself."""

    environment: str
    url: str
    model: LiveModel
    since: str = Field(default="", description="When it was released, where that was before this run.")


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
    model, target = checked.model, release_target(environment.name, get_settings()).endpoint()
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
    target = release_target(environment.name, get_settings()).endpoint()
    try:
        _require_unchanged(target.status().live, checked, environment)
    except ReleaseHeld:
        target.discard(candidate)
        raise
    target.switch(candidate)
    live = confirm_live(environment, checked.model.digest)
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
    live = confirm_live(environment, model.digest)
    newest = last_word(backend(get_settings()).ledger(), environment.name)
    if newest is None or newest.model.digest != model.digest:
        _record(live, model, environment, by)
    return live.model_copy(update={"since": since})


def _require_unchanged(live: LiveModel | None, checked: Releasable, environment: Environment) -> None:
    """Refuse to replace another version than the one that this release was checked against."""
    current, expected = (model.digest if model else None for model in (live, checked.instead_of))
    if current not in (expected, checked.model.digest):
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
    models = backend(get_settings()).registry()
    models.set_champion(model, environment.name)
    models.tag(model, {f"released.{environment.name}": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"})


def confirm_live(environment: Environment, digest: str) -> Live:
    """What the endpoint reports, if it is `digest`.

    Raises:
        SmokeTestFailed: It is another one, and stays it.
        EndpointUnreachable: It doesn't answer now.
    """
    target = release_target(environment.name, get_settings()).endpoint()
    for _ in polls(NAME_SECONDS, pause=1):
        status = target.status()
        if status.live is None or status.live.digest == digest:
            break
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
