"""The evidence for a decision on a release: the candidate beside what is live, computed once, shown once a run.

What is missing is said. It keeps nobody from deciding.
"""

from typing import Final

from prefect import get_run_logger
from pydantic import Field

from infra.backend import endpoint, registry
from infra.correlation import root_run
from infra.environments import Environment
from infra.errors import PlatformError
from infra.ports import RegisteredModel
from infra.settings import get_settings
from model.evaluation import Assessment
from model.manifest import read_manifest
from tasks.artifacts import create_markdown_artifact, picture
from tasks.evidence_page import Opponent, evidence_page
from tasks.reports import keep_report, read_report
from tasks.stage import Result, key_of, stage

PICTURES: Final = {
    "confusion-matrices": "True class against predicted class",
    "disagreements": "Images that candidate and live version answer differently",
}


class Compared(Result):
    """How a candidate does on the test images of its data version, and the live version beside it."""

    assessment: Assessment | None = Field(description="None where it couldn't be measured.")
    pictures: dict[str, str] = Field(default_factory=dict, description="By name, where they are kept.")
    problem: str = Field(default="", description="Why it couldn't be measured.")


def _once_a_run(model: RegisteredModel, environment: Environment, started_by: str) -> str:
    return key_of("evidence", root_run(), environment.name, model.digest, started_by, code=[])


@stage("Show evidence", "evidence on {model.name} v{model.version} for {environment.name}", key=_once_a_run)
def show_evidence(model: RegisteredModel, environment: Environment, started_by: str) -> Result:
    """Publish everything that a person needs to decide: a page, confusion matrices, images that both answer apart.

    Args:
        model: The candidate.
        environment: Where it is to go live.
        started_by: Who started the release.
    """
    opponent = _find_opponent(model, environment)
    compared = compare_with_live(model, opponent.model)
    if compared.problem and _made_elsewhere(compared):
        # Of an earlier run; what couldn't be read then may be there now.
        compared = compare_with_live.with_options(refresh_cache=True)(model, opponent.model)
    for name, uri in compared.pictures.items():
        picture(name, read_report(uri), f"{model.label} for {environment.name}: {PICTURES[name]}")
    create_markdown_artifact(
        key="approval",
        description=f"{model.label} waits for a decision on {environment.name}",
        markdown=evidence_page(model, environment, started_by, opponent, compared.assessment, compared.problem),
    )
    return Result()


def _find_opponent(model: RegisteredModel, environment: Environment) -> Opponent:
    """What is live where the candidate is to go, as far as the two can be compared."""
    settings = get_settings()
    live = endpoint(environment.name, settings).status().live
    if live is None:
        return Opponent(told=f"Nothing is live in {environment.name}: this is its first release.")
    if live.name != model.name:
        return Opponent(told=f"{live.label} is live, a model of another name: it can't be compared.")
    try:
        return Opponent(model=registry(settings).get(live.name, live.version), told=f"{live.label} is live.")
    except PlatformError as error:
        return Opponent(told=f"{live.label} is live, and can't be compared: {error}")


def _made_elsewhere(compared: Compared) -> bool:
    return compared.origin is not None and compared.origin.root_run_id != root_run()


def _comparison_key(model: RegisteredModel, live: RegisteredModel | None) -> str:
    data = {name: model.tags.get(name) for name in ("data_uri", "source_uri")}
    return key_of(
        "comparison",
        model.digest,
        live.digest if live else None,
        data,
        code=["model.evaluation", "model.plots"],
        packages=["onnxruntime"],
    )


@stage("Compare with live", "compare {model.name} v{model.version} with what is live", key=_comparison_key)
def compare_with_live(model: RegisteredModel, live: RegisteredModel | None) -> Compared:
    """Score both on the same images of the frozen test split of the candidate's data version, and draw it."""
    try:
        return _compare(model, live)
    except Exception as error:  # noqa: BLE001 - whatever is the matter with old data, a person may decide without
        get_run_logger().warning("%s couldn't be measured: %s", model.label, error)
        return Compared(assessment=None, problem=f"{error}")


def _compare(model: RegisteredModel, live: RegisteredModel | None) -> Compared:
    from model.evaluation import assess
    from model.plots import draw_comparison

    source = model.tags.get("source_uri")
    if not source:
        return Compared(assessment=None, problem="The registry doesn't say where its images are (`source_uri`).")
    settings = get_settings()
    models = registry(settings)
    frame = read_manifest(model.tags["data_uri"])
    bundles = [models.download(each, settings.path("verified")) for each in (model, live) if each is not None]
    assessment = assess(bundles[0], bundles[1] if live else None, frame, source)
    names = (f"v{model.version}", f"v{live.version}, live" if live else "")
    folder = f"comparisons/{model.name}-{model.digest[:12]}-{live.digest[:12] if live else 'first'}"
    drawn = draw_comparison(assessment, names, source)
    return Compared(
        assessment=assessment,
        pictures={name: keep_report(folder, f"{name}.png", png) for name, png in drawn.items()},
    )
