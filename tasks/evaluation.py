"""Evaluation: make the bundle, find the champion, compare both on identical images, give the verdict."""

from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from prefect import get_run_logger

from infra.backend import endpoint, folders, registry, tracker
from infra.ports import RegisteredModel
from infra.revision import revision
from infra.settings import get_settings
from model.bundle import BundleRef, Lineage
from model.config import TrainingConfig
from model.evaluation import Evaluation
from model.gate import GateConfig, Verdict
from model.manifest import DataVersion, read_manifest
from tasks.artifacts import create_markdown_artifact, picture, table
from tasks.reports import keep_report, read_report
from tasks.stage import Result, config_hash, key_of, package_versions, stage
from tasks.training import Training

if TYPE_CHECKING:
    from model.evaluation import Assessment


class Champion(Result):
    """The model that is live in an environment, as its endpoint reports; None before the first release."""

    model: RegisteredModel | None


class Sealed(Result):
    """A bundle whose bytes don't change any more."""

    bundle: BundleRef


class Judgement(Result):
    """The verdict on a bundle, with its evidence."""

    verdict: Verdict
    evaluation: Evaluation
    champion: RegisteredModel | None
    plots: dict[str, str]


@stage("Find champion", "champion of {name}", always=True)
def find_champion(name: str, environments: tuple[str, ...]) -> Champion:
    """Ask the last environment's endpoint what it runs; the registry knows the rest.

    A model of another data set is no champion, and where nothing is released to, nobody has to be beaten.
    """
    settings = get_settings()
    live = endpoint(environments[-1], settings).status().live if environments else None
    if live is None or live.name != name:
        return Champion(model=None)
    return Champion(model=registry(settings).get(live.name, live.version))


@stage("Find opponent", "opponent of {bundle.name}", always=True)
def find_opponent(champion: RegisteredModel | None, bundle: BundleRef) -> Champion:
    """Whom the bundle is compared with: the champion; or, if it is the champion itself, whom it had to beat then."""
    if champion is None or champion.digest != bundle.digest:
        return Champion(model=champion)
    beaten = champion.tags.get("judged_against")
    return Champion(model=registry(get_settings()).get(champion.name, int(beaten)) if beaten else None)


def _bundle_key(data: DataVersion, config: TrainingConfig, training: Training) -> str:
    made = Path(training.directory).name
    packages = ["onnx", "onnxruntime", "onnxscript", "torch"]
    return key_of("bundle", data.version, config, made, code=["model.build"], packages=packages)


@stage("Seal bundle", "bundle {data.name}@{data.version}", key=_bundle_key)
def seal_bundle(data: DataVersion, config: TrainingConfig, training: Training) -> Sealed:
    """Export to ONNX, calibrate, check parity with the trained network, add golden images, lineage and model card."""
    from model.build import build_bundle

    lineage = Lineage(
        data_version=data.version,
        data_uri=data.manifest_uri,
        code=revision(),
        config_hash=config_hash(config),
        seed=config.seed,
        environment=package_versions("torch", "pytorch-lightning", "onnx", "onnxruntime", "numpy", "pillow"),
    )
    settings, key = get_settings(), _bundle_key(data, config, training)
    kept = folders(settings)
    checkpoint = kept.fetch(training.directory) / PurePosixPath(training.checkpoint).name
    bundle = build_bundle(
        checkpoint, data, settings.path("bundles") / key, name=data.name, lineage=lineage, history=training.history
    )
    # By its digest too: of one key two machines may make bundles that differ.
    place = kept.publish(Path(bundle.path), f"bundles/{key}/{bundle.digest}")
    get_run_logger().info("Bundle %s, digest %s.", place, bundle.digest)
    return Sealed(bundle=bundle.model_copy(update={"path": place}))


def local_bundle(bundle: BundleRef) -> Path:
    """The folder of a sealed bundle on this machine; its bytes are not verified yet."""
    return folders(get_settings()).fetch(bundle.path)


def _judgement_key(bundle: BundleRef, opponent: RegisteredModel | None, data: DataVersion, gates: GateConfig) -> str:
    against = opponent.digest if opponent else None
    code = ["model.evaluation", "model.gate", "model.plots"]
    return key_of("judgement", bundle.digest, against, data.version, gates, code=code, packages=["onnxruntime"])


@stage("Evaluate", "judge {bundle.name} on {data.name}@{data.version}", key=_judgement_key)
def evaluate_and_judge(
    bundle: BundleRef, opponent: RegisteredModel | None, data: DataVersion, gates: GateConfig
) -> Judgement:
    """Score challenger and champion on the same images of the frozen test split, and judge."""
    from model.evaluation import assess
    from model.gate import judge

    settings = get_settings()
    champion = registry(settings).download(opponent, settings.path("champions")) if opponent else None
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
    from model.plots import draw_evaluation

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
    experiment = tracker(get_settings())
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
