"""The evidence for a decision on a release: the candidate beside what is live, computed once, shown once a run.

What is missing is said. It keeps nobody from deciding.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from prefect import get_run_logger
from pydantic import Field

from infra.backend import backend, release_target
from infra.config.environments import Environment, environment_names
from infra.errors import PlatformError
from infra.ports import RegisteredModel
from infra.runs.correlation import root_run
from infra.settings import get_settings
from model.bundle.read import open_bundle
from model.data.manifest import read_manifest
from model.evaluation.evaluate import Assessment
from model.evaluation.metrics import difference_interval
from model.values import Frozen
from tasks.framework.artifacts import create_markdown_artifact, picture, table
from tasks.framework.cache_key import key_of
from tasks.framework.reports import keep_report, read_report
from tasks.framework.stage import Result, stage

if TYPE_CHECKING:
    from model.evaluation.evaluate import Assessment, Comparison, Evaluation

Rows = list[tuple[object, ...]]


class Opponent(Frozen):
    """The live version that a candidate would replace."""

    summary: str
    model: RegisteredModel | None = None


def evidence_page(
    model: RegisteredModel,
    environment: Environment,
    started_by: str,
    opponent: Opponent,
    assessment: "Assessment | None",
    problem: str,
) -> str:
    """The page on a candidate; where a fact is missing, the page says why.

    Args:
        model: The candidate.
        environment: Where it is to go live.
        started_by: Who started the release.
        opponent: What is live there.
        assessment: Both on the same images; None where they couldn't be measured.
        problem: Why not.
    """
    sections = (
        ("Beside what is live", _measured(model, opponent, assessment, problem)),
        ("What it costs", _or_reason(lambda: release_target(environment.name, get_settings()).costs())),
        ("What it was made from", _or_reason(lambda: _lineage(model))),
        ("What happened to it before", _or_reason(lambda: _before(model, environment))),
    )
    return f"# {model.label} to {environment.name}?\n\n{_how_to_decide(environment, started_by)}\n\n" + "\n\n".join(
        f"## {title}\n\n{text}" for title, text in sections
    )


def _or_reason(section: Callable[[], str]) -> str:
    try:
        return section()
    except Exception as error:  # noqa: BLE001 - what can't be found out is said, and keeps nobody from deciding
        return f"Not known: {error}"


def _how_to_decide(environment: Environment, started_by: str) -> str:
    gates = environment.gates
    run = root_run()
    who = ", ".join(gates.approvers) or "Anybody"
    but = f" Not {started_by}, who started it: another person approves." if gates.four_eyes else ""
    return (
        "Decide with the form of this run (Resume), or with\n\n```sh\n"
        f'ahc approve {run} --by YOU --reason "..."\nahc reject {run} --by YOU --reason "..."\n```\n\n'
        f"Started by {started_by}. {who} may decide, within {gates.approval_hours:g} hours.{but}"
    )


def _measured(model: RegisteredModel, opponent: Opponent, assessment: "Assessment | None", problem: str) -> str:
    if assessment is None:
        metrics: Rows = [(name.removeprefix("metric."), value) for name, value in _metrics(model)]
        when = "Measured when it was registered:\n\n" + table(("", model.label), metrics) if metrics else ""
        return f"{opponent.summary}\n\n**It couldn't be measured again.** {problem}\n\n{when}".rstrip()
    columns = {model.label: assessment.challenger}
    if assessment.champion is not None and opponent.model is not None:
        columns[f"{opponent.model.label}, live"] = assessment.champion
    numbers = table(("", *columns), _numbers(list(columns.values())))
    compared = f"\n\n{_paired(assessment.comparison)}" if assessment.comparison else ""
    return (
        f"{opponent.summary} Measured on the {assessment.challenger.images} test images of data version "
        f"`{model.tags.get('data_version', '?')}`.\n\n{numbers}{compared}"
    )


def _metrics(model: RegisteredModel) -> list[tuple[str, str]]:
    return sorted((name, value) for name, value in model.tags.items() if name.startswith("metric."))


def _numbers(models: "list[Evaluation]") -> Rows:
    return [
        ("accuracy (95 %)", *(str(each.accuracy) for each in models)),
        ("balanced accuracy", *(f"{each.macro_recall:.3f}" for each in models)),
        ("calibration error", *(f"{each.ece:.3f}" for each in models)),
        (
            "latency of one image, here",
            *(
                f"{each.latency.median:.1f} ms (p95 {each.latency.p95:.1f})" if each.latency else "not measured"
                for each in models
            ),
        ),
        ("size", *(f"{each.size_bytes / 1e6:.1f} MB" for each in models)),
    ]


def _paired(comparison: "Comparison") -> str:
    overall = comparison.overall
    difference = difference_interval(overall)
    labels: Rows = [
        (label, counts.images, counts.wins, counts.losses)
        for label, counts in comparison.per_class.items()
        if counts.wins or counts.losses
    ]
    changes = [
        f"{word} {', '.join(names)}"
        for word, names in (("New labels:", comparison.added), ("Labels that are gone:", comparison.removed))
        if names
    ]
    summary = (
        f"They answer {comparison.differ} of {overall.images} images differently. Only the candidate is right on "
        f"{overall.wins}, only the live version on {overall.losses}: accuracy {difference.value:+.1%} (90 % "
        f"interval {difference.low:+.1%} to {difference.high:+.1%})."
    )
    tables = [table(("label", "images", "only candidate right", "only live right"), labels)] if labels else []
    return "\n\n".join((summary, *changes, *tables))


def _run_link(run: str) -> str:
    return f"[{run}]({backend(get_settings()).tracker().link(run)})"


def _lineage(model: RegisteredModel) -> str:
    settings = get_settings()
    made = open_bundle(
        backend(settings).registry().download(model, settings.path("verified")), digest=model.digest
    ).lineage
    tags = model.tags
    run = tags.get("mlflow_run", "")
    rows: Rows = [
        ("data version", f"`{made.data_version}`"),
        ("manifest", f"`{made.data_uri}`"),
        ("code", f"`{made.code}`"),
        ("configuration", f"`{made.config_hash}`"),
        ("seed", made.seed),
        ("trained by", tags.get("trained_by", "not recorded")),
        ("MLflow run", _or_reason(lambda: _run_link(run)) if run else "not recorded"),
        ("build or run", f"`{tags.get('correlation_id') or 'not recorded'}`"),
        ("registered", f"{model.created:%Y-%m-%d %H:%M} UTC"),
        ("digest", f"`{model.digest}`"),
        ("packages", ", ".join(f"{name} {version}" for name, version in made.environment.items()) or "not recorded"),
        ("verdict", f"{tags.get('verdict')}: {tags.get('verdict_reason', '')}"),
    ]
    return table(("", ""), rows)


def _before(model: RegisteredModel, environment: Environment) -> str:
    """What the ledger tells of these bytes, in the order of the environments."""
    settings = get_settings()
    names = environment_names(settings.environments)
    events = (
        event
        for name in names[: names.index(environment.name) + 1]
        for event in backend(settings).ledger().history(name).events
    )
    rows: Rows = [
        (each.environment, f"{each.at:%Y-%m-%d %H:%M} UTC", each.kind, each.by, each.reason, _details(each.details))
        for each in events
        if each.model.digest == model.digest
    ]
    return table(("environment", "when", "what", "by", "why", "figures"), rows)


def _details(details: dict[str, object]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {json.dumps(value, default=str).strip(chr(34))}"
        for name, value in details.items()
    )


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
    live = release_target(environment.name, settings).endpoint().status().live
    if live is None:
        return Opponent(summary=f"Nothing is live in {environment.name}: this is its first release.")
    if live.name != model.name:
        return Opponent(summary=f"{live.label} is live, a model of another name: it can't be compared.")
    try:
        registered = backend(settings).registry().get(live.name, live.version)
        return Opponent(model=registered, summary=f"{live.label} is live.")
    except PlatformError as error:
        return Opponent(summary=f"{live.label} is live, and can't be compared: {error}")


def _made_elsewhere(compared: Compared) -> bool:
    return compared.origin is not None and compared.origin.root_run_id != root_run()


def _comparison_key(model: RegisteredModel, live: RegisteredModel | None) -> str:
    data = {name: model.tags.get(name) for name in ("data_uri", "source_uri")}
    return key_of(
        "comparison",
        model.digest,
        live.digest if live else None,
        data,
        code=["model.evaluation.evaluate", "model.evaluation.plots"],
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
    from model.evaluation.evaluate import assess
    from model.evaluation.plots import draw_comparison

    source = model.tags.get("source_uri")
    if not source:
        return Compared(assessment=None, problem="The registry doesn't say where its images are (`source_uri`).")
    settings = get_settings()
    models = backend(settings).registry()
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
