"""Registration: a bundle becomes a version of its model."""

from prefect import get_run_logger

from infra.backend import backend
from infra.ports import RegisteredModel
from infra.runs.correlation import correlation_id
from infra.settings import get_settings
from model.bundle.read import BundleRef, open_bundle
from model.data.manifest import DataVersion
from tasks.framework.cache_key import key_of
from tasks.framework.events import model_registered
from tasks.framework.run_starter import started_by
from tasks.framework.stage import Result, stage
from tasks.training.bundle import local_bundle
from tasks.training.judge import Judgement, scalars
from tasks.training.train import Training


class Registration(Result):
    """The version under which the registry keeps the bundle."""

    model: RegisteredModel


@stage(
    "Register",
    "register {bundle.name}",
    key=lambda bundle, judgement, **_: key_of("registration", bundle.digest, judgement.verdict.outcome, code=[]),
)
def register(bundle: BundleRef, judgement: Judgement, data: DataVersion, training: Training) -> Registration:
    """Store the bundle as the next version, with its lineage, metrics and verdict; once for each digest."""
    folder = local_bundle(bundle)
    lineage = open_bundle(folder, digest=bundle.digest).lineage
    model = (
        backend(get_settings())
        .registry()
        .register(
            folder,
            name=bundle.name,
            digest=bundle.digest,
            tags={
                "verdict": judgement.verdict.outcome,
                "verdict_reason": judgement.verdict.reason,
                "judged_against": str(judgement.champion.version) if judgement.champion else "",
                "data_version": data.version,
                "data_uri": data.manifest_uri,
                "source_uri": data.source_uri,
                "code": lineage.code,
                "mlflow_run": training.tracking_run,
                "trained_by": started_by(),
                "correlation_id": correlation_id(),
            },
            metrics=scalars(judgement.evaluation),
        )
    )
    model_registered(model, judgement.verdict.outcome)
    get_run_logger().info("Registered %s, digest %s.", model.label, model.digest)
    return Registration(model=model)
