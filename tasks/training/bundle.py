"""The task that seals a bundle of trained weights, and its copy on this machine."""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from prefect import get_run_logger

from infra.backend import backend
from infra.settings import get_settings
from infra.version import revision
from model.bundle.read import BundleRef, Lineage
from model.config import TrainingConfig
from model.data.manifest import DataVersion
from tasks.framework.cache_key import config_hash, key_of, package_versions
from tasks.framework.stage import Result, stage
from tasks.training.train import Training

if TYPE_CHECKING:
    pass


class Sealed(Result):
    """A bundle whose bytes don't change any more."""

    bundle: BundleRef


def _bundle_key(data: DataVersion, config: TrainingConfig, training: Training) -> str:
    made = Path(training.directory).name
    packages = ["onnx", "onnxruntime", "onnxscript", "torch"]
    return key_of("bundle", data.version, config, made, code=["model.export.build"], packages=packages)


@stage("Seal bundle", "bundle {data.name}@{data.version}", key=_bundle_key)
def seal_bundle(data: DataVersion, config: TrainingConfig, training: Training) -> Sealed:
    """Export to ONNX, calibrate, check parity with the trained network, add golden images, lineage and model card."""
    from model.export.build import build_bundle

    lineage = Lineage(
        data_version=data.version,
        data_uri=data.manifest_uri,
        code=revision(),
        config_hash=config_hash(config),
        seed=config.seed,
        environment=package_versions("torch", "pytorch-lightning", "onnx", "onnxruntime", "numpy", "pillow"),
    )
    settings, key = get_settings(), _bundle_key(data, config, training)
    store = backend(settings).folders()
    checkpoint = store.fetch(training.directory) / PurePosixPath(training.checkpoint).name
    bundle = build_bundle(
        checkpoint, data, settings.path("bundles") / key, name=data.name, lineage=lineage, history=training.history
    )
    # By its digest too: of one key two machines may make bundles that differ.
    place = store.publish(Path(bundle.path), f"bundles/{key}/{bundle.digest}")
    get_run_logger().info("Bundle %s, digest %s.", place, bundle.digest)
    return Sealed(bundle=bundle.model_copy(update={"path": place}))


def local_bundle(bundle: BundleRef) -> Path:
    """The folder of a sealed bundle on this machine; its bytes are not verified yet."""
    return backend(get_settings()).folders().fetch(bundle.path)
