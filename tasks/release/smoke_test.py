"""The smoke test: a candidate shows what it can do before it takes any traffic."""

from pathlib import Path
from statistics import quantiles
from time import perf_counter

from pydantic import SecretStr

from infra.backend import release_target
from infra.config.environments import Environment, endpoint_key
from infra.errors import AccessDenied, RequestRejected, SmokeTestFailed
from infra.ports import Candidate, LiveModel, RunningVersion
from infra.releases.scoring_client import ScoringClient
from infra.settings import get_settings
from model.bundle.read import Bundle, open_bundle
from tasks.framework.artifacts import create_markdown_artifact, table
from tasks.framework.gate_results import gate_results, show_gate
from tasks.framework.stage import Result, stage
from tasks.release.ledger_note import note

LATENCY_REQUESTS = 40


class Smoke(Result):
    """The smoke test that a candidate passed."""

    golden_images: int
    latency_p95_ms: float


@stage("Smoke test", "smoke test {candidate.model.name} v{candidate.model.version} in {environment.name}", always=True)
def smoke_test(candidate: Candidate, bundle: str, environment: Environment) -> Smoke:
    """Golden images, error cases, authentication and latency, on the candidate alone; a failed one is discarded.

    Raises:
        SmokeTestFailed: Names every check that failed.
    """
    settings = get_settings()
    opened = open_bundle(Path(bundle), verify=False)
    key = release_target(environment.name, settings).secrets().ensure(endpoint_key(environment.name))
    with (
        ScoringClient(candidate.url, key, sampled=False) as client,
        ScoringClient(candidate.url, SecretStr("wrong")) as stranger,
    ):
        problems = [
            *_wrong_model(client, candidate.model),
            *_wrong_answers(client, opened),
            *_wrong_manners(client, stranger),
        ]
        limit = environment.gates.latency_p95_ms
        p95 = _latency_p95_ms(client, opened, limit)
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
    as_expected = f"{len(opened.golden)} golden images, error cases, authentication; latency {p95:.0f} ms (p95)."
    show_gate(f"smoke-test-{environment.name}", gate_results("smoke test", problems, if_none=as_expected))
    if problems:
        release_target(environment.name, settings).endpoint().discard(candidate)
        note(environment.name, "failed", candidate.model, by="smoke test", reason="; ".join(problems))
        raise SmokeTestFailed(f"{candidate.model.label}: {'; '.join(problems)}.")
    return Smoke(golden_images=len(opened.golden), latency_p95_ms=round(p95, 2))


def wrong_golden_answers(version: RunningVersion, bundle: Path, environment: Environment) -> list[str]:
    """What a version that runs answers otherwise than its bundle expects; asked at its own address."""
    key = release_target(environment.name, get_settings()).secrets().ensure(endpoint_key(environment.name))
    with ScoringClient(version.url, key, sampled=False, cookie=version.cookie) as client:
        return [*_wrong_model(client, version.model), *_wrong_answers(client, open_bundle(bundle, verify=False))]


def _wrong_model(client: ScoringClient, expected: LiveModel) -> list[str]:
    reported = client.model().digest
    return [] if reported == expected.digest else [f"digest: it reports {reported[:12]}"]


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


def _latency_p95_ms(client: ScoringClient, bundle: Bundle, limit: float) -> float:
    """Of LATENCY_REQUESTS requests; of fewer, once so many are beyond the limit that it can't be met any more."""
    images = [image.read() for image in bundle.golden]
    times: list[float] = []
    while len(times) < LATENCY_REQUESTS and sum(time > limit for time in times) <= LATENCY_REQUESTS // 20:
        started = perf_counter()
        client.score(images[len(times) % len(images)])
        times.append((perf_counter() - started) * 1000)
    return quantiles(times, n=20)[-1]
