"""Release: bring a registered version into an environment, without losing a request or an answer being wrong."""

from datetime import UTC, datetime
from pathlib import Path

from prefect import get_run_logger
from pydantic import Field

from infra.backend import endpoint, registry
from infra.environments import Environment
from infra.errors import ConfigurationError, SmokeTestFailed
from infra.ports import Candidate, LiveModel, RegisteredModel
from infra.settings import get_settings
from model.bundle import open_bundle
from tasks.artifacts import create_link_artifact
from tasks.stage import Result, stage

LATENCY_REQUESTS = 40


class Releasable(Result):
    """A version that may be released to an environment, with its verified bytes."""

    model: RegisteredModel
    bundle: str
    already_live: bool


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
def check_version(name: str, version: int, environment: Environment) -> Releasable:
    """Verify verdict, digest and the environment that must come first; fetch the bytes.

    Raises:
        ModelNotFound: No such version.
        BundleCorrupt: The registry's bytes are not those of the digest.
        ConfigurationError: The version may not go here, or not yet.
    """
    settings = get_settings()
    model = registry(settings).get(name, version)
    if model.tags.get("verdict") != "promote":
        raise ConfigurationError(
            f"{model.label} has the verdict `{model.tags.get('verdict')}`: {model.tags.get('verdict_reason')}",
            next_step="Only versions with the verdict `promote` are released.",
        )
    first = environment.gates.requires
    if first and not _is_live(first, model):
        raise ConfigurationError(
            f"{model.label} is not live in {first}, which {environment.name} requires.",
            next_step=f"Release it there first: `ahc trigger release/{first} -p name={name} -p version={version}`.",
        )
    bundle = registry(settings).download(model, settings.path("verified"))
    open_bundle(bundle, digest=model.digest)
    return Releasable(model=model, bundle=str(bundle), already_live=_is_live(environment.name, model))


def _is_live(environment: str, model: RegisteredModel) -> bool:
    live = endpoint(environment, get_settings()).status().live
    return live is not None and live.digest == model.digest


@stage(
    "Deploy candidate", "deploy {model.name} v{model.version} beside the live one in {environment.name}", always=True
)
def deploy_candidate(model: RegisteredModel, bundle: str, environment: Environment) -> Deployed:
    """Start the version where it takes no traffic yet."""
    live = LiveModel(name=model.name, version=model.version, digest=model.digest)
    candidate = endpoint(environment.name, get_settings()).deploy(Path(bundle), live)
    get_run_logger().info("%s runs at %s and takes no traffic yet.", model.label, candidate.url)
    return Deployed(candidate=candidate)


@stage("Switch traffic", "switch {environment.name} to {candidate.model.name} v{candidate.model.version}", always=True)
def switch_traffic(candidate: Candidate, model: RegisteredModel, environment: Environment) -> Live:
    """Let the candidate take over, ask the endpoint what it runs now, and record the champion.

    Raises:
        SmokeTestFailed: The endpoint reports another digest than the one that was released.
    """
    settings = get_settings()
    target = endpoint(environment.name, settings)
    target.switch(candidate)
    live = verified(environment, model.digest)
    registry(settings).set_champion(model, environment.name)
    registry(settings).tag(model, {f"released.{environment.name}": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"})
    create_link_artifact(
        key=f"endpoint-{environment.name}", link=live.url, link_text=live.url, description=f"{model.label} is live here"
    )
    return live


@stage("Verify live", "verify {environment.name} runs {model.name} v{model.version}", always=True)
def verify_live(environment: Environment, model: RegisteredModel) -> Live:
    """Ask the endpoint of an environment where this version is live already."""
    since = model.tags.get(f"released.{environment.name}", "an unknown time")
    return verified(environment, model.digest).model_copy(update={"since": since})


def verified(environment: Environment, digest: str) -> Live:
    """What the endpoint reports, if it is `digest`."""
    status = endpoint(environment.name, get_settings()).status()
    if status.live is None or status.live.digest != digest:
        raise SmokeTestFailed(
            f"{environment.name} should run {digest[:12]} but reports "
            f"{status.live.digest[:12] if status.live else status.state}.",
            next_step=f"Run `ahc status`, then `ahc rollback {environment.name}`.",
        )
    return Live(environment=environment.name, url=status.url, model=status.live)
