"""Which adapter serves which port: those of one machine, or Azure's.

`AHC_BACKEND` decides for the registry, the tracker and the data; an environment's file may decide for its endpoint and
secrets. Adapters are imported where they are chosen: one machine needs no Azure SDK.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import fsspec

from infra.config.environments import load_environment
from infra.config.trainers import load_trainer
from infra.container_images import ImageBuilder
from infra.errors import ConfigurationError
from infra.ports import (
    DataCatalogue,
    Endpoint,
    ExperimentTracker,
    FolderStore,
    ModelRegistry,
    Notices,
    RegisteredModel,
    SecretStore,
    SharedModels,
)
from infra.releases.ledger import FileLedger, ReleaseLedger
from infra.settings import Backend, Settings
from infra.training import Trainer

if TYPE_CHECKING:
    from infra.azure.machine_learning.components import AmlPublication

# A source may lie in Azure whatever the backend; programs open its URL without knowing whose identity that takes. The
# class is imported with the first such URL.
for _protocol in ("abfs", "abfss", "az"):
    fsspec.register_implementation(_protocol, "infra.azure.storage.filesystem.AzureFiles", clobber=True)


def registry(settings: Settings) -> ModelRegistry:
    if settings.backend == "azure":
        from infra.azure.machine_learning.registry import AmlRegistry

        return AmlRegistry(settings)
    from infra.local.stores.registry import MlflowRegistry

    return MlflowRegistry(settings.mlflow_store, settings.path("registry"))


def champions(settings: Settings, environments: Sequence[str]) -> dict[str, tuple[RegisteredModel, ...]]:
    """Per environment, what the registry calls the champion of each model name, last released first."""
    if settings.backend == "local":
        from infra.local.stores.registry import champions as local_champions

        return local_champions(settings, environments)
    models = registry(settings)
    names = models.names()
    found = {item: [models.champion(name, item) for name in names] for item in environments}
    return {item: _last_released_first([model for model in found[item] if model], item) for item in environments}


def _last_released_first(models: list[RegisteredModel], environment: str) -> tuple[RegisteredModel, ...]:
    return tuple(sorted(models, key=lambda model: model.tags.get(f"released.{environment}", ""), reverse=True))


def tracker(settings: Settings) -> ExperimentTracker:
    if settings.backend == "azure":
        from infra.azure.machine_learning.tracking import aml_tracker

        return aml_tracker(settings)
    from infra.stores.mlflow_tracking import MlflowTracker, server_link

    artifacts = settings.path("mlflow", "artifacts")
    return MlflowTracker(settings.mlflow_store, server_link(settings.mlflow_url), artifacts=artifacts)


def trainer(settings: Settings) -> Trainer | None:
    """Where networks are fitted; None for the process that asks.

    Raises:
        ConfigurationError: There is no such trainer file, it is wrong, or it needs the other backend.
    """
    described = load_trainer(settings.trainer, settings.trainers)
    if described.kind == "process":
        return None
    if described.kind == "kubernetes":
        from infra.kubernetes.trainer import PrefectTrainer

        return PrefectTrainer(described)
    if settings.backend != "azure":
        raise ConfigurationError(
            f"The trainer `{settings.trainer}` trains in Azure ML, whose machines read data and write results in the "
            "platform's storage on Azure; the backend is `local`.",
            next_step="Set AHC_BACKEND=azure, or AHC_TRAINER=local to train on this machine.",
        )
    from infra.azure.machine_learning.trainer import AmlTrainer

    return AmlTrainer(described, settings)


def publication(settings: Settings) -> "AmlPublication":
    """Where the training code is published for jobs that start without Prefect.

    Raises:
        ConfigurationError: With the local backend, which has no such place.
    """
    if settings.backend == "azure":
        from infra.azure.machine_learning.components import AmlPublication

        return AmlPublication(settings)
    raise ConfigurationError("Training code is published to Azure ML: set AHC_BACKEND=azure.")


def folders(settings: Settings) -> FolderStore:
    """Where folders that a later run needs are kept."""
    if settings.backend == "azure":
        from infra.azure.storage.folders import platform_folders

        return platform_folders(settings)
    from infra.local.stores.folders import LocalFolders

    return LocalFolders()


def data_root(settings: Settings) -> str:
    """The fsspec URL under which manifests, reports and the state of trainings are kept."""
    if settings.backend == "azure":
        from infra.azure.access.resources import platform_resources
        from infra.azure.storage.blobs import data_url

        return data_url(platform_resources(settings).storage_account, "data")
    return str(settings.home)


def lake(settings: Settings) -> str:
    """The fsspec URL under which evaluation metrics are kept."""
    return str(settings.home / "lake") if settings.backend == "local" else data_root(settings)


def records_store(environment: str, settings: Settings) -> str:
    """The fsspec URL under which the scoring records of this environment are kept; raises as `secrets` does."""
    described = load_environment(environment, settings.environments)
    if backend_of(environment, settings) == "azure":
        from infra.azure.access.resources import environment_resources
        from infra.azure.storage.blobs import data_url

        return data_url(environment_resources(described, settings).storage_account, "records")
    return str(settings.home / "lake")


def samples(name: str, settings: Settings) -> str:
    """Where the images of the sample data set of this name are, fetched if they weren't: a path or fsspec URL.

    Raises:
        DownloadFailed: As `infra.stores.sample_data.fetch` does.
    """
    if settings.backend == "azure":
        from infra.azure.storage.samples import published_sample

        return published_sample(name, settings)
    from infra.stores.sample_data import fetch

    return str(fetch(name, settings.path("samples")))


def data_catalogue(settings: Settings) -> DataCatalogue | None:
    """Where people look for data versions; None on one machine, where their folder is all there is."""
    if settings.backend == "azure":
        from infra.azure.machine_learning.data_assets import AmlData

        return AmlData(settings)
    return None


def shared_models(environment: str, settings: Settings) -> SharedModels | None:
    """Where the environment of this name shares its versions to; None where its file names nothing, or not on Azure.

    Raises: ConfigurationError, as `secrets` does.
    """
    described = load_environment(environment, settings.environments)
    named = described.azure.model_registry
    if named is None or backend_of(environment, settings) != "azure":
        return None
    from infra.azure.machine_learning.shared_models import AmlSharedModels

    return AmlSharedModels(named, described, settings)


def notices(settings: Settings) -> Notices | None:
    """Notices of models that were registered by whomever; None where nobody sends any.

    Raises: NotProvisioned.
    """
    if settings.backend == "azure":
        from infra.azure.machine_learning.registration_queue import platform_notices

        return platform_notices(settings)
    return None


def exclusive(name: str, settings: Settings) -> AbstractContextManager[None]:
    """Wait for the only holder of this name (which may have slashes) on all machines of the backend, and hold it."""
    if settings.backend == "azure":
        from infra.azure.storage.leases import exclusive_name

        return exclusive_name(name, settings)
    from model.files import exclusive as exclusive_file

    return exclusive_file(settings.home / name / ".lock")


def ledger(settings: Settings) -> ReleaseLedger:
    """What happened to which version in which environment."""
    if settings.backend == "azure":
        from infra.azure.storage.ledger import platform_events

        return FileLedger(platform_events(settings))
    from infra.local.stores.ledger import EventFolder

    return FileLedger(EventFolder(settings.home / "ledger"))


def image_builder(settings: Settings) -> ImageBuilder:
    """Where container images are built and kept.

    Raises:
        ConfigurationError: Nothing on this machine can build them.
    """
    if settings.backend == "azure":
        from infra.azure.container_images.builds import RegistryBuilds

        return RegistryBuilds(settings)
    from infra.local.image_builds import LocalBuilds

    return LocalBuilds()


def secrets(environment: str, settings: Settings) -> SecretStore:
    """The secrets of the environment of this name.

    Raises:
        ConfigurationError: There is no such environment, or its file is wrong.
    """
    if backend_of(environment, settings) == "azure":
        from infra.azure.storage.key_vault import KeyVaultSecrets

        return KeyVaultSecrets(environment, settings)
    from infra.local.stores.secrets import FileSecrets

    return FileSecrets(settings.path("secrets"))


def endpoint(environment: str, settings: Settings) -> Endpoint:
    """The endpoint of the environment of this name; raises as `secrets` does."""
    described = load_environment(environment, settings.environments)
    store = secrets(environment, settings)
    if backend_of(environment, settings) == "azure":
        if described.azure.endpoint == "app-service":
            from infra.azure.endpoint.app_service.endpoint import AppServiceEndpoint

            return AppServiceEndpoint(described, settings, store)
        from infra.azure.endpoint.container_instances.endpoint import ContainerInstancesEndpoint

        return ContainerInstancesEndpoint(described, settings, store)
    from infra.local.endpoint.endpoint import LocalEndpoint

    return LocalEndpoint(described, settings, store)


def backend_of(environment: str, settings: Settings) -> Backend:
    """Where the endpoint and the secrets of the environment of this name are; raises as `secrets` does."""
    return load_environment(environment, settings.environments).backend or settings.backend
