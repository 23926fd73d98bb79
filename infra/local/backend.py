"""Which adapter serves which port on one machine."""

from infra.environments import load_environment
from infra.local.endpoint import LocalEndpoint
from infra.local.registry import MlflowRegistry
from infra.local.secrets import FileSecrets
from infra.local.tracking import MlflowTracker
from infra.settings import Settings


def registry(settings: Settings) -> MlflowRegistry:
    return MlflowRegistry(settings.mlflow_store, settings.path("registry"))


def tracker(settings: Settings) -> MlflowTracker:
    return MlflowTracker(settings.mlflow_store, settings.path("mlflow", "artifacts"), settings.mlflow_url)


def secrets(settings: Settings) -> FileSecrets:
    return FileSecrets(settings.path("secrets"))


def endpoint(name: str, settings: Settings) -> LocalEndpoint:
    """The endpoint of the environment `name`.

    Raises:
        ConfigurationError: There is no such environment, or its file is wrong.
    """
    return LocalEndpoint(load_environment(name, settings.environments), settings, secrets(settings))
