"""Release: bring a registered version into an environment, without losing a request or an answer being wrong."""

from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from time import perf_counter

from prefect import get_run_logger
from prefect.flow_runs import suspend_flow_run
from pydantic import Field, SecretStr

from infra.backend import endpoint, registry, secrets
from infra.environments import Environment, endpoint_key, load_environment
from infra.errors import AccessDenied, ConfigurationError, ReleaseRejected, RequestRejected, SmokeTestFailed
from infra.ports import Candidate, LiveModel, RegisteredModel
from infra.scoring_client import ScoringClient
from infra.settings import get_settings
from model.bundle import Bundle, open_bundle
from tasks.approval import ReleaseDecision
from tasks.artifacts import create_link_artifact, create_markdown_artifact, table
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


class Smoke(Result):
    """The smoke test that a candidate passed."""

    golden_images: int
    latency_p95_ms: float


class Live(Result):
    """What an environment's endpoint runs now, as it reports itself."""

    environment: str
    url: str
    model: LiveModel
    since: str = Field(default="", description="When it was released, where that was before this run.")


def check_targets(names: tuple[str, ...]) -> None:
    """Refuse unknown environments, and those that need an approval, before any work is done.

    Raises:
        ConfigurationError: Names the environment.
    """
    for name in names:
        if environment_file(name).gates.approval:
            raise ConfigurationError(
                f"`release_to` names {name}, where a person must approve, and a lifecycle doesn't wait for people.",
                next_step=f"Release to {name} on its own: `ahc trigger release/{name} -p name=NAME -p version=N`.",
            )


def environment_file(name: str) -> Environment:
    """The environment file of this name."""
    return load_environment(name, get_settings().environments)


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


@stage("Approve", "record the decision on {model.name} v{model.version}")
def record_decision(model: RegisteredModel, environment: Environment, decision: ReleaseDecision) -> Result:
    """Write who decided what, when and why on the model version.

    Raises:
        ReleaseRejected: The decision was no.
    """
    word = "approved" if decision.approved else "rejected"
    record = f"{word} by {decision.by} at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {decision.reason}"
    registry(get_settings()).tag(model, {f"decision.{environment.name}": record})
    get_run_logger().info("%s for %s %s", model.label, environment.name, record)
    if not decision.approved:
        raise ReleaseRejected(f"The release of {model.label} to {environment.name} was {record}.")
    return Result()


def wait_for_approval(model: RegisteredModel, environment: Environment) -> ReleaseDecision:
    """Suspend this run until a person decides; meanwhile no process waits. The rerun gets the decision at once."""
    evidence: list[tuple[object, ...]] = sorted(model.tags.items())
    create_markdown_artifact(
        key="approval",
        description=f"{model.label} waits for a decision on {environment.name}",
        markdown=f"# {model.label} to {environment.name}?\n\nDecide with the form of this run (Resume), or with "
        f'`ahc approve RUN --by YOU --reason "..."` or `ahc reject RUN --by YOU --reason "..."`.\n\n'
        + table(("evidence", ""), evidence),
    )
    return suspend_flow_run(
        wait_for_input=ReleaseDecision.with_initial_data(
            description=f"Release **{model.label}** to **{environment.name}**? {model.tags.get('verdict_reason', '')}",
            approved=True,
        ),
        timeout=int(environment.gates.approval_hours * 3600),
        key=f"{environment.name}-{model.version}",
    )


@stage(
    "Deploy candidate", "deploy {model.name} v{model.version} beside the live one in {environment.name}", always=True
)
def deploy_candidate(model: RegisteredModel, bundle: str, environment: Environment) -> Deployed:
    """Start the version where it takes no traffic yet."""
    live = LiveModel(name=model.name, version=model.version, digest=model.digest)
    candidate = endpoint(environment.name, get_settings()).deploy(Path(bundle), live)
    get_run_logger().info("%s runs at %s and takes no traffic yet.", model.label, candidate.url)
    return Deployed(candidate=candidate)


@stage("Smoke test", "smoke test {candidate.model.name} v{candidate.model.version} in {environment.name}", always=True)
def smoke_test(candidate: Candidate, bundle: str, environment: Environment) -> Smoke:
    """Golden images, error cases, authentication and latency, on the candidate alone; a failed one is discarded.

    Raises:
        SmokeTestFailed: Names every check that failed.
    """
    settings = get_settings()
    opened = open_bundle(Path(bundle), verify=False)
    key = secrets(environment.name, settings).ensure(endpoint_key(environment.name))
    with ScoringClient(candidate.url, key) as client, ScoringClient(candidate.url, SecretStr("wrong")) as stranger:
        problems = [
            *_wrong_model(client, candidate),
            *_wrong_answers(client, opened),
            *_wrong_manners(client, stranger),
        ]
        p95 = _latency_p95_ms(client, opened)
    limit = environment.gates.latency_p95_ms
    if p95 > limit:
        problems.append(f"latency: {p95:.0f} ms at the 95th percentile, the limit is {limit:.0f} ms")
    checks: list[tuple[object, ...]] = [(problem,) for problem in problems] or [("everything as expected",)]
    create_markdown_artifact(
        key=f"smoke-test-{environment.name}",
        description=f"Smoke test in {environment.name}: {'failed' if problems else 'passed'}",
        markdown=f"# Smoke test in {environment.name}\n\n{len(opened.golden)} golden images, error cases, "
        f"authentication, latency {p95:.1f} ms (p95 of {LATENCY_REQUESTS}; limit {limit:.0f} ms).\n\n"
        + table(("finding",), checks),
    )
    if problems:
        endpoint(environment.name, settings).discard(candidate)
        raise SmokeTestFailed(f"{candidate.model.name} v{candidate.model.version}: {'; '.join(problems)}.")
    return Smoke(golden_images=len(opened.golden), latency_p95_ms=round(p95, 2))


@stage("Switch traffic", "switch {environment.name} to {candidate.model.name} v{candidate.model.version}", always=True)
def switch_traffic(candidate: Candidate, model: RegisteredModel, environment: Environment) -> Live:
    """Let the candidate take over, ask the endpoint what it runs now, and record the champion.

    Raises:
        SmokeTestFailed: The endpoint reports another digest than the one that was released.
    """
    settings = get_settings()
    target = endpoint(environment.name, settings)
    target.switch(candidate)
    live = _verified(environment, model.digest)
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
    return _verified(environment, model.digest).model_copy(update={"since": since})


def _verified(environment: Environment, digest: str) -> Live:
    """What the endpoint reports, if it is `digest`."""
    status = endpoint(environment.name, get_settings()).status()
    if status.live is None or status.live.digest != digest:
        raise SmokeTestFailed(
            f"{environment.name} should run {digest[:12]} but reports "
            f"{status.live.digest[:12] if status.live else status.state}.",
            next_step=f"Run `ahc status`, then `ahc rollback {environment.name}`.",
        )
    return Live(environment=environment.name, url=status.url, model=status.live)


@stage("Roll back", "roll back {environment.name}", always=True)
def roll_back(environment: Environment, reason: str) -> Live:
    """The warm previous version takes over; the bad one is marked.

    Raises:
        NothingToRollBackTo: The environment has no previous version.
    """
    settings = get_settings()
    target = endpoint(environment.name, settings)
    bad = target.status().live
    good = target.rollback()
    live = _verified(environment, good.digest)
    models = registry(settings)
    if bad is not None and bad.digest != good.digest:
        models.tag(models.get(bad.name, bad.version), {f"rolled_back.{environment.name}": reason})
    back = models.get(good.name, good.version)
    models.set_champion(back, environment.name)
    models.tag(back, {f"released.{environment.name}": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"})
    get_run_logger().info("%s runs %s v%d again.", environment.name, good.name, good.version)
    return live


def _wrong_model(client: ScoringClient, candidate: Candidate) -> list[str]:
    reported = client.model().digest
    return [] if reported == candidate.model.digest else [f"digest: the candidate reports {reported[:12]}"]


def _wrong_answers(client: ScoringClient, bundle: Bundle) -> list[str]:
    problems = []
    for image in bundle.golden:
        answer = {item["label"]: item["probability"] for item in client.score(image.read())["predictions"]}
        if not image.matches([answer.get(label, -1.0) for label in bundle.labels]):
            problems.append(f"golden image {image.path.name}: unexpected answer {answer}")
    return problems


def _wrong_manners(client: ScoringClient, stranger: ScoringClient) -> list[str]:
    problems = []
    for what, body, status in (("an empty body", b"", 400), ("a broken image", b"not an image", 422)):
        if (answered := _refused(client, body)) != status:
            problems.append(f"{what}: answered {answered} instead of {status}")
    if (answered := _refused(stranger, b"not an image")) != 401:
        problems.append(f"a wrong key: answered {answered} instead of 401")
    return problems


def _refused(client: ScoringClient, body: bytes) -> int:
    """The status with which a request is refused; 200 where it isn't."""
    try:
        client.score(body)
    except RequestRejected as error:
        return error.status
    except AccessDenied:
        return 401
    return 200


def _latency_p95_ms(client: ScoringClient, bundle: Bundle) -> float:
    images = [image.read() for image in bundle.golden]
    times = []
    for turn in range(LATENCY_REQUESTS):
        started = perf_counter()
        client.score(images[turn % len(images)])
        times.append((perf_counter() - started) * 1000)
    return quantiles(times, n=20)[-1]
