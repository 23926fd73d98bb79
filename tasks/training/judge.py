"""Evaluation: compare the bundle with the champion on identical images, give the verdict."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from prefect import get_run_logger

from infra.backend import backend
from infra.ports import RegisteredModel
from infra.settings import get_settings
from model.bundle.read import BundleRef
from model.data.manifest import DataVersion, read_manifest
from model.evaluation.evaluate import Evaluation
from model.evaluation.verdict import GateConfig, Verdict
from tasks.framework.artifacts import create_markdown_artifact, picture, table
from tasks.framework.cache_key import key_of
from tasks.framework.reports import keep_report, read_report
from tasks.framework.stage import Result, stage
from tasks.training.bundle import local_bundle
from tasks.training.train import Training

if TYPE_CHECKING:
    from model.evaluation.evaluate import Assessment


class Judgement(Result):
    """The verdict on a bundle, with its evidence."""

    verdict: Verdict
    evaluation: Evaluation
    champion: RegisteredModel | None
    plots: dict[str, str]


def _judgement_key(bundle: BundleRef, opponent: RegisteredModel | None, data: DataVersion, gates: GateConfig) -> str:
    against = opponent.digest if opponent else None
    code = ["model.evaluation.evaluate", "model.evaluation.verdict", "model.evaluation.plots"]
    return key_of("judgement", bundle.digest, against, data.version, gates, code=code, packages=["onnxruntime"])


@stage("Evaluate", "judge {bundle.name} on {data.name}@{data.version}", key=_judgement_key)
def evaluate_and_judge(
    bundle: BundleRef, opponent: RegisteredModel | None, data: DataVersion, gates: GateConfig
) -> Judgement:
    """Score challenger and champion on the same images of the frozen test split, and judge."""
    from model.evaluation.evaluate import assess
    from model.evaluation.verdict import judge

    settings = get_settings()
    champion = backend(settings).registry().download(opponent, settings.path("champions")) if opponent else None
    frame = read_manifest(data.manifest_uri)
    assessment = assess(local_bundle(bundle), champion, frame, data.source_uri, seed=gates.seed)
    verdict = judge(assessment, gates)
    plots = _show(bundle, assessment, data)
    create_markdown_artifact(
        key="verdict", markdown=_markdown(verdict, assessment, opponent), description=f"Verdict: {verdict.outcome}"
    )
    get_run_logger().info("Verdict %s: %s", verdict.outcome, verdict.reason)
    return Judgement(verdict=verdict, evaluation=assessment.challenger, champion=opponent, plots=plots)


def _show(bundle: BundleRef, assessment: "Assessment", data: DataVersion) -> dict[str, str]:
    """Publish the pictures of an evaluation; answers by name where they are kept."""
    from model.evaluation.plots import draw_evaluation

    plots = {}
    for name, png in draw_evaluation(assessment, data.source_uri).items():
        picture(name, png, f"{bundle.name} {bundle.digest[:12]}: {name.replace('-', ' ')}")
        plots[name] = keep_report(f"{bundle.name}-{bundle.digest[:12]}", f"{name}.png", png)
    return plots


def _tracked_key(bundle: BundleRef, judgement: Judgement, training: Training) -> str:
    return key_of("tracked", bundle.digest, judgement.verdict, training.tracking_run, code=[])


@stage("Track evaluation", "metrics of {bundle.name}", key=_tracked_key)
def track_evaluation(bundle: BundleRef, judgement: Judgement, training: Training) -> Result:
    """Put the test metrics and plots beside the curves, where runs are compared."""
    experiment = backend(get_settings()).tracker()
    experiment.log(training.tracking_run, scalars(judgement.evaluation), step=training.epochs)
    with TemporaryDirectory(prefix="ahc-plots-") as folder:
        for name, uri in judgement.plots.items():
            (Path(folder) / f"{name}.png").write_bytes(read_report(uri))
        experiment.log_files(training.tracking_run, Path(folder))
    get_run_logger().info("Metrics and plots of %s are at %s", bundle.name, training.tracking_link)
    return Result()


def _markdown(verdict: Verdict, assessment: "Assessment", opponent: RegisteredModel | None) -> str:
    evaluation = assessment.challenger
    against = f"against {opponent.label}" if opponent else "against the floors for a first model"
    rows: list[tuple[object, ...]] = [
        (
            "passed" if check.passed else "**FAILED**",
            check.name,
            f"{check.value:.4g}",
            f"{check.limit:.4g}",
            check.detail,
        )
        for check in verdict.checks
    ]
    return (
        f"# Verdict: {verdict.outcome}\n\n{verdict.reason}\n\nJudged {against} on {evaluation.images} test images. "
        f"Accuracy {evaluation.accuracy.value:.3f} "
        f"({evaluation.accuracy.low:.3f} to {evaluation.accuracy.high:.3f}, 95 % bootstrap interval).\n\n"
        + table(("result", "check", "value", "limit", "detail"), rows)
    )


def scalars(evaluation: Evaluation) -> dict[str, float]:
    """The numbers of an evaluation by which models are compared in the tracker and the registry."""
    numbers = {
        "test_accuracy": evaluation.accuracy.value,
        "test_accuracy_low": evaluation.accuracy.low,
        "test_accuracy_high": evaluation.accuracy.high,
        "test_macro_f1": evaluation.macro_f1,
        "test_macro_recall": evaluation.macro_recall,
        "test_ece": evaluation.ece,
        "test_log_loss": evaluation.log_loss,
        "size_mb": evaluation.size_bytes / 1e6,
    }
    return numbers | ({"latency_ms": evaluation.latency.median} if evaluation.latency else {})
