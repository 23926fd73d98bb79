"""The end of a lifecycle in one value: what `ahc up` prints and what the run shows as its last artifact."""

from pydantic import Field

from infra.ports import Frozen, RegisteredModel
from model.gate import Check
from model.manifest import DataVersion
from tasks.artifacts import create_markdown_artifact, table
from tasks.data import ValidatedData
from tasks.evaluation import Judgement, Sealed
from tasks.registration import Registration
from tasks.release import Live
from tasks.stage import Result, root_run
from tasks.training import Training


class Trained(Frozen):
    """What the training flow answers: a judged, registered version."""

    training: Training
    sealed: Sealed
    judgement: Judgement
    registration: Registration

    @property
    def promoted(self) -> bool:
        return self.judgement.verdict.outcome == "promote"


class Step(Frozen):
    """One step of a lifecycle, and from which run it was reused, if it was."""

    name: str
    seconds: float = Field(description="What it took when it was made.")
    reused_from: str | None = Field(description="Name of the run that made it; None for this run.")
    detail: str


class Accuracy(Frozen):
    """Share of the test images that are answered right, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class Summary(Frozen):
    """The outcome of a lifecycle with its evidence."""

    verdict: str
    reason: str
    checks: tuple[Check, ...]
    accuracy: Accuracy
    model: RegisteredModel
    data: DataVersion
    endpoints: dict[str, str]
    tracking_link: str
    reports: dict[str, str]
    steps: tuple[Step, ...]


def summarise(validated: ValidatedData, trained: Trained, live: list[Live]) -> Summary:
    """Collect what a person wants to know at the end, and publish it."""
    manifest, validation = validated.manifest, validated.validation
    judgement, training = trained.judgement, trained.training
    accuracy = judgement.evaluation.accuracy
    model = trained.registration.model
    steps = [
        _step("manifest", manifest, f"{manifest.data.images:,} images, version {manifest.data.version}"),
        _step("validation", validation, f"{len(validation.report.findings)} checks, none blocks"),
        _step("training", training, f"{training.epochs} epochs at {training.images_per_second or 0:.0f} images/s"),
        _step("bundle", trained.sealed, f"digest {trained.sealed.bundle.digest[:12]}"),
        _step("evaluation", judgement, f"accuracy {accuracy.value:.3f}, {judgement.verdict.outcome}"),
        _step("registration", trained.registration, model.label),
        *(_step(f"release to {item.environment}", item, item.url) for item in live),
    ]
    summary = Summary(
        verdict=judgement.verdict.outcome,
        reason=judgement.verdict.reason,
        checks=judgement.verdict.checks,
        accuracy=Accuracy(value=accuracy.value, low=accuracy.low, high=accuracy.high),
        model=model,
        data=manifest.data,
        endpoints={item.environment: item.url for item in live},
        tracking_link=training.tracking_link,
        reports={"data": validation.html, **judgement.plots},
        steps=tuple(steps),
    )
    create_markdown_artifact(
        key="summary", markdown=_markdown(summary), description=f"{model.label}: {summary.verdict}"
    )
    return summary


def _step(name: str, result: Result, detail: str) -> Step:
    origin = result.origin
    made_here = origin is None or origin.root_run_id == root_run()
    return Step(
        name=name,
        seconds=origin.seconds if origin else 0.0,
        reused_from=None if made_here or origin is None else origin.flow_run_name,
        detail=detail,
    )


def _markdown(summary: Summary) -> str:
    steps: list[tuple[object, ...]] = [
        (
            step.name,
            step.detail,
            f"{step.seconds:.1f} s",
            f"reused from {step.reused_from}" if step.reused_from else "made now",
        )
        for step in summary.steps
    ]
    endpoints = "\n".join(f"- **{name}**: {url}" for name, url in summary.endpoints.items()) or "- none"
    return (
        f"# {summary.model.label}: {summary.verdict}\n\n{summary.reason}\n\n"
        f"Accuracy on the test split: **{summary.accuracy.value:.3f}** "
        f"({summary.accuracy.low:.3f} to {summary.accuracy.high:.3f}).\n\n"
        + table(("step", "result", "took", "from"), steps)
        + f"\n\n## Endpoints\n\n{endpoints}\n\n[Curves and metrics in MLflow]({summary.tracking_link})\n"
    )
