"""The end of a lifecycle in one value: what `ahc up` prints and what the run shows as its last artifact."""

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from pydantic import Field

from infra.ports import RegisteredModel
from infra.runs.correlation import root_run
from model.data.manifest import DataVersion
from model.evaluation.verdict import Check
from model.values import Frozen
from tasks.framework.artifacts import create_markdown_artifact, table
from tasks.framework.stage import Origin, Result
from tasks.release.deploy_and_switch import Live
from tasks.training.bundle import Sealed
from tasks.training.data import ValidatedData
from tasks.training.judge import Judgement
from tasks.training.register import Registration
from tasks.training.train import Training


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
        _step(
            "validation",
            validation,
            f"{len(validation.report.findings)} checks, none blocks, {len(validation.report.warnings)} warn",
        ),
        _step("training", training, f"{training.epochs} epochs at {training.images_per_second or 0:.0f} images/s"),
        _step("bundle", trained.sealed, f"digest {trained.sealed.bundle.digest[:12]}"),
        _step("evaluation", judgement, f"accuracy {accuracy.value:.3f}, {judgement.verdict.outcome}"),
        _step("registration", trained.registration, model.label),
        *(_release_step(item) for item in live),
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
    reused = origin is not None and origin.root_run_id != root_run()
    return Step(
        name=name,
        seconds=origin.seconds if origin else 0.0,
        reused_from=_name_of(origin) if origin and reused else None,
        detail=detail,
    )


def _release_step(live: Live) -> Step:
    step = _step(f"release to {live.environment}", live, live.url)
    return step.model_copy(update={"reused_from": f"the release of {live.since}"}) if live.since else step


def _name_of(origin: Origin) -> str:
    """What the run that made a result is called now; its first name where the server doesn't know it any more."""
    with get_client(sync_client=True) as client:
        try:
            return str(client.read_flow_run(UUID(origin.root_run_id)).name)
        except ObjectNotFound:
            return origin.flow_run_name


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
