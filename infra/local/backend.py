"""Everything that the platform has on one machine."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final, NoReturn

from infra.config.environments import Environment
from infra.config.trainers import TrainerFile
from infra.errors import ConfigurationError
from infra.finding import Finding
from infra.local.endpoint.endpoint import LocalEndpoint
from infra.local.image_builds import LocalBuilds
from infra.local.stores.folders import LocalFolders
from infra.local.stores.ledger import EventFolder
from infra.local.stores.registry import MlflowRegistry, champions
from infra.local.stores.secrets import FileSecrets
from infra.ports import RegisteredModel
from infra.releases.ledger import FileLedger
from infra.settings import Place, Settings
from infra.stores.mlflow_tracking import MlflowTracker, server_link
from infra.stores.sample_data import fetch
from model.files import exclusive


class LocalReleaseTarget:
    """An environment whose endpoint runs on this machine."""

    place: Final[Place] = "local"

    def __init__(self, environment: Environment, settings: Settings) -> None:
        self._environment = environment
        self._settings = settings

    def endpoint(self) -> LocalEndpoint:
        return LocalEndpoint(self._environment, self._settings, self.secrets())

    def secrets(self) -> FileSecrets:
        return FileSecrets(self._settings.path("secrets"))

    def records_store(self) -> str:
        return str(self._settings.home / "lake")

    def shared_models(self) -> None:
        return None

    def costs(self) -> str:
        return "It runs on this machine and costs nothing more."


class LocalBackend:
    """The platform under `AHC_HOME`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def release_target(self, environment: Environment) -> LocalReleaseTarget:
        return LocalReleaseTarget(environment, self._settings)

    def registry(self) -> MlflowRegistry:
        return MlflowRegistry(self._settings.mlflow_store, self._settings.path("registry"))

    def champions(self, environments: Sequence[str]) -> dict[str, tuple[RegisteredModel, ...]]:
        return champions(self._settings, environments)

    def tracker(self) -> MlflowTracker:
        artifacts = self._settings.path("mlflow", "artifacts")
        return MlflowTracker(self._settings.mlflow_store, server_link(self._settings.mlflow_url), artifacts=artifacts)

    def trainer(self, file: TrainerFile) -> NoReturn:
        raise ConfigurationError(
            f"The trainer `{file.name}` trains in Azure ML, whose machines read data and write results in the "
            "platform's storage on Azure; the backend is `local`.",
            next_step="Set AHC_BACKEND=azure, or AHC_TRAINER=local to train on this machine.",
        )

    def publication(self) -> NoReturn:
        raise ConfigurationError("Training code is published to Azure ML: set AHC_BACKEND=azure.")

    def folders(self) -> LocalFolders:
        return LocalFolders()

    def data_root(self) -> str:
        return str(self._settings.home)

    def lake(self) -> str:
        return str(self._settings.home / "lake")

    def samples(self, name: str) -> str:
        return str(fetch(name, self._settings.path("samples")))

    def data_catalogue(self) -> None:
        return None

    def notices(self) -> None:
        return None

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        return exclusive(self._settings.home / name / ".lock")

    def ledger(self) -> FileLedger:
        return FileLedger(EventFolder(self._settings.home / "ledger"))

    def image_builder(self) -> LocalBuilds:
        return LocalBuilds()

    def results(self) -> None:
        return None

    def telemetry(self) -> str:
        return ""

    def checks(self, environments: Sequence[str], *, required: bool) -> list[Finding]:  # noqa: ARG002
        """Nothing beyond what the machine is checked for anyway."""
        return []
