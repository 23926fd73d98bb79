"""Shadow: real images of an environment are replayed to a candidate, and its answers compared with the live ones."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from prefect import get_run_logger
from pydantic import Field

from infra.backend import release_target
from infra.config.environments import Environment, endpoint_key
from infra.config.gates import Shadow
from infra.errors import EndpointUnreachable, RequestRejected, ShadowDisagrees
from infra.ports import Candidate, LiveModel
from infra.releases.sampled_images import newest_images, read_image
from infra.releases.scoring_client import ScoringClient
from infra.runs.telemetry import traceparent
from infra.settings import get_settings
from model.evaluation.plots import shadow_sheet
from model.evaluation.shadow_agreement import Agreement, Answer, Pair
from tasks.framework.artifacts import Progress, create_markdown_artifact, picture, table
from tasks.framework.gate_results import GateResult, show_gate
from tasks.framework.stage import Result, stage
from tasks.release.ledger_note import note

FETCHED_BYTES: Final = 256 * 1024 * 1024
"""Images beyond are left out: the task may run where memory is small."""
READERS: Final = 8
AT_A_TIME: Final = 2
"""So few, that clients of the live version don't notice."""
SHOWN_CHANGES: Final = 20
SHOWN_IMAGES: Final = 12


class Shadowed(Result):
    """What a shadow found, where it didn't stop the release."""

    environment: str
    images: int = Field(description="On which the answers were compared.")
    agreement: float | None = Field(default=None, description="Share of them on which both name the same label.")
    distance: float | None = Field(default=None, description="Mean distance of the probabilities, 0 to 1.")
    warning: str = Field(default="", description="Why nothing was compared.")


@stage("Shadow", "shadow {candidate.model.name} v{candidate.model.version} in {environment.name}", always=True)
def shadow(candidate: Candidate, environment: Environment) -> Shadowed:
    """Compare the candidate with the live version on the newest images that the environment keeps.

    Where there is nothing to compare, the release goes on, and a warning says so. A candidate that disagrees too often
    is discarded.

    Raises:
        ShadowDisagrees: They agree on fewer images than `gates.shadow.min_agreement`.
        EndpointUnreachable: One of them stopped to answer meanwhile.
    """
    gate = environment.gates.shadow
    assert gate is not None, f"{environment.name} has no shadow gate"
    settings = get_settings()
    images = _fetch(environment, gate.images)
    if not images:
        return _nothing_compared(candidate, environment, _no_images(environment))
    key = release_target(environment.name, settings).secrets().ensure(endpoint_key(environment.name))
    status = release_target(environment.name, settings).endpoint().status()
    with (
        ScoringClient(status.url, key, sampled=False) as live,
        ScoringClient(candidate.url, key, sampled=False) as new,
    ):
        try:
            model = live.model()
        except EndpointUnreachable as error:
            return _nothing_compared(candidate, environment, f"Nothing is live that answers. {error} {status.detail}")
        agreement = Agreement(pairs=_replay(images, live, new, environment.name))
    _show(agreement, images, model, candidate, environment)
    if agreement.share < gate.min_agreement:
        raise _discarded(agreement, candidate, environment.name, gate)
    return Shadowed(
        environment=environment.name,
        images=len(images),
        agreement=round(agreement.share, 4),
        distance=round(agreement.distance, 4),
    )


def _fetch(environment: Environment, images: int) -> dict[str, bytes]:
    """The newest images by URL, all of them before the first is replayed: newer ones take their places."""
    urls = newest_images(release_target(environment.name, get_settings()).records_store(), environment.name, images)
    fetched: dict[str, bytes] = {}
    room = FETCHED_BYTES
    with ThreadPoolExecutor(READERS, thread_name_prefix="images") as pool:
        for url, content in zip(urls, pool.map(read_image, urls), strict=True):
            if content is None:
                continue
            room -= len(content)
            if room < 0:
                break
            fetched[url] = content
    return fetched


def _replay(images: Mapping[str, bytes], live: ScoringClient, new: ScoringClient, environment: str) -> tuple[Pair, ...]:
    """Both answers to each image."""
    progress = Progress(f"shadow-progress-{environment}", f"{len(images)} images are replayed")
    trace = traceparent()

    def compare(url: str) -> Pair:
        image = images[url]
        return Pair(image=url, live=_answer(live, image, trace), candidate=_answer(new, image, trace))

    pairs = []
    with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="shadow") as pool:
        for done, pair in enumerate(pool.map(compare, images), start=1):
            pairs.append(pair)
            progress.update(done, len(images))
    return tuple(pairs)


def _answer(client: ScoringClient, image: bytes, trace: str) -> Answer:
    try:
        predictions = client.score(image, trace=trace)["predictions"]
    except RequestRejected as error:
        return Answer(problem=error.kind)
    return Answer(probabilities={item["label"]: item["probability"] for item in predictions})


def _no_images(environment: Environment) -> str:
    return (
        f"No image of {environment.name} is kept. Its endpoint keeps {environment.sample_images} "
        f"(`sample_images`) of {environment.sample_rate:.0%} of the requests (`sample_rate`) as they come, once it was "
        "started with these keys of the environment's file."
    )


def _nothing_compared(candidate: Candidate, environment: Environment, why: str) -> Shadowed:
    get_run_logger().warning("Nothing was compared: %s", why)
    create_markdown_artifact(
        key=f"shadow-{environment.name}",
        description=f"Shadow in {environment.name}: nothing was compared",
        markdown=f"# Shadow of {candidate.model.label} in {environment.name}\n\n"
        f"**Warning: nothing was compared**, and the release went on. {why}\n",
    )
    return Shadowed(environment=environment.name, images=0, warning=why)


def _show(
    agreement: Agreement, images: Mapping[str, bytes], live: LiveModel, candidate: Candidate, environment: Environment
) -> None:
    gate, count = environment.gates.shadow, len(agreement.pairs)
    assert gate is not None
    few = f" (`gates.shadow.images` is {gate.images}; no more are kept)" if count < gate.images else ""
    outcome = "agrees" if agreement.share >= gate.min_agreement else "disagrees"
    facts: list[tuple[object, ...]] = [
        ("images", f"{count}{few}"),
        ("same label", f"{agreement.share:.1%}, at least {gate.min_agreement:.1%} is wanted"),
        ("mean distance of the probabilities", f"{agreement.distance:.3f} (0 to 1, total variation)"),
        ("live", f"{live.label} `{live.digest[:12]}`"),
        ("candidate", f"{candidate.model.label} `{candidate.model.digest[:12]}`"),
    ]
    changes: list[tuple[object, ...]] = [*agreement.changes()[:SHOWN_CHANGES]]
    disagreements = table(("live answers", "candidate answers", "images"), changes)
    create_markdown_artifact(
        key=f"shadow-{environment.name}",
        description=f"Shadow in {environment.name}: {outcome} on {agreement.share:.1%} of {count} images",
        markdown=f"# Shadow of {candidate.model.label} in {environment.name}\n\n{table(('', ''), facts)}\n\n"
        + (f"## Where they disagree\n\n{disagreements}\n" if agreement.disagreements else ""),
    )
    agrees = GateResult(
        check="same label",
        passed=agreement.share >= gate.min_agreement,
        detail=f"The same label on {agreement.share:.1%} of {count} images.",
        value=agreement.share,
        limit=gate.min_agreement,
    )
    show_gate(f"shadow-{environment.name}", [agrees])
    if agreement.disagreements:
        pictures = [(pair, images[pair.image]) for pair in agreement.disagreements[:SHOWN_IMAGES]]
        picture(
            f"shadow-images-{environment.name}",
            shadow_sheet(pictures),
            f"{len(pictures)} of {len(agreement.disagreements)} images on which they disagree, furthest apart first",
        )


def _discarded(agreement: Agreement, candidate: Candidate, environment: str, gate: Shadow) -> ShadowDisagrees:
    """What to raise, once the candidate is gone and the ledger knows."""
    release_target(environment, get_settings()).endpoint().discard(candidate)
    reason = (
        f"{candidate.model.label} agrees with the live version of {environment} on {agreement.share:.1%} of "
        f"{len(agreement.pairs)} images; at least {gate.min_agreement:.1%} is wanted."
    )
    figures = {"images": len(agreement.pairs), "agreement": agreement.share, "distance": agreement.distance}
    note(environment, "aborted", candidate.model, by="shadow", reason=reason, details=figures)
    return ShadowDisagrees(reason)
