"""Which adapter serves which port: those of one machine, or Azure's.

`AHC_BACKEND` decides for the registry, the tracker and the data; an environment's file may decide for its endpoint and
secrets. Adapters are imported where they are chosen: one machine needs no Azure SDK.
"""

from collections.abc import Sequence

from infra.environments import load_environment
from infra.errors import ConfigurationError
from infra.ports import Endpoint, ExperimentTracker, FolderStore, ModelRegistry, RegisteredModel, SecretStore
from infra.settings import Backend, Settings


def registry(settings: Settings) -> ModelRegistry:
    if settings.backend == "azure":
        from infra.azure.registry import AmlRegistry

        return AmlRegistry(settings)
    from infra.local.registry import MlflowRegistry

    return MlflowRegistry(settings.mlflow_store, settings.path("registry"))


def champions(settings: Settings, environments: Sequence[str]) -> dict[str, tuple[RegisteredModel, ...]]:
    """Per environment, what the registry calls the champion of each model name, last released first."""
    if settings.backend == "local":
        from infra.local.champions import champions as local_champions

        return local_champions(settings, environments)
    models = registry(settings)
    names = models.names()
    found = {item: [models.champion(name, item) for name in names] for item in environments}
    return {item: _last_released_first([model for model in found[item] if model], item) for item in environments}


def _last_released_first(models: list[RegisteredModel], environment: str) -> tuple[RegisteredModel, ...]:
    return tuple(sorted(models, key=lambda model: model.tags.get(f"released.{environment}", ""), reverse=True))


def tracker(settings: Settings) -> ExperimentTracker:
    if settings.backend == "azure":
        from infra.azure.tracking import aml_tracker

        return aml_tracker(settings)
    from infra.tracking import MlflowTracker, server_link

    artifacts = settings.path("mlflow", "artifacts")
    return MlflowTracker(settings.mlflow_store, server_link(settings.mlflow_url), artifacts=artifacts)


def folders(settings: Settings) -> FolderStore:
    """Where folders that a later run needs are kept."""
    _only_local(settings.backend)
    from infra.local.folders import LocalFolders

    return LocalFolders()


def data_root(settings: Settings) -> str:
    """The fsspec URL under which manifests, reports and records are kept."""
    _only_local(settings.backend)
    return str(settings.home)


def lake(settings: Settings) -> str:
    """The fsspec URL under which evaluation metrics are kept."""
    return str(settings.home / "lake") if settings.backend == "local" else data_root(settings)


def records_store(environment: str, settings: Settings) -> str:
    """The fsspec URL under which the scoring records of this environment are kept; raises as `secrets` does."""
    _only_local(_backend(environment, settings))
    return str(settings.home / "lake")


def secrets(environment: str, settings: Settings) -> SecretStore:
    """The secrets of the environment of this name.

    Raises:
        ConfigurationError: There is no such environment, or its file is wrong.
    """
    if _backend(environment, settings) == "azure":
        from infra.azure.secrets import KeyVaultSecrets

        return KeyVaultSecrets(environment, settings)
    from infra.local.secrets import FileSecrets

    return FileSecrets(settings.path("secrets"))


def endpoint(environment: str, settings: Settings) -> Endpoint:
    """The endpoint of the environment of this name; raises as `secrets` does."""
    described = load_environment(environment, settings.environments)
    store = secrets(environment, settings)
    _only_local(_backend(environment, settings))
    from infra.local.endpoint import LocalEndpoint

    return LocalEndpoint(described, settings, store)


def _backend(environment: str, settings: Settings) -> Backend:
    return load_environment(environment, settings.environments).backend or settings.backend


def _only_local(backend: Backend) -> None:
    if backend != "local":
        raise ConfigurationError(f"The backend `{backend}` has no adapter for this yet.", next_step="Use `local`.")
