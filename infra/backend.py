"""The places where the platform can be, behind one Protocol: this machine, and an Azure subscription.

`AHC_BACKEND` says where the platform is, and an environment's file may say where that environment is. The class of a
place is imported when somebody asks for it: one machine needs no Azure SDK.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Protocol

import fsspec

from infra.config.environments import Environment, load_environment
from infra.config.trainers import TrainerFile, load_trainer
from infra.container_images import ImageBuilder
from infra.errors import PlatformError
from infra.finding import Finding
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
from infra.releases.ledger import ReleaseLedger
from infra.settings import Place, Settings, get_settings
from infra.training import Trainer

if TYPE_CHECKING:
    from infra.azure.machine_learning.components import AmlPublication
    from infra.azure.storage.prefect_results import AzureResults


class ReleaseTarget(Protocol):
    """One environment, at the place where it is."""

    @property
    def place(self) -> Place: ...

    def endpoint(self) -> Endpoint: ...

    def secrets(self) -> SecretStore: ...

    def records_store(self) -> str:
        """The fsspec URL under which its scoring records are kept."""
        ...

    def shared_models(self) -> SharedModels | None:
        """Where it shares its versions to; None where its file names nothing, or this place has no such registry."""
        ...

    def costs(self) -> str:
        """What it costs, in a sentence."""
        ...


class Backend(Protocol):
    """Everything that the platform has at one place."""

    def release_target(self, environment: Environment) -> ReleaseTarget: ...

    def registry(self) -> ModelRegistry: ...

    def champions(self, environments: Sequence[str]) -> dict[str, tuple[RegisteredModel, ...]]:
        """Per environment, what the registry calls the champion of each model name, last released first."""
        ...

    def tracker(self) -> ExperimentTracker: ...

    def trainer(self, file: TrainerFile) -> Trainer:
        """The trainer of a file that needs this place.

        Raises:
            ConfigurationError: This place has no such trainer.
        """
        ...

    def publication(self) -> "AmlPublication":
        """Where the training code is published for jobs that start without Prefect.

        Raises:
            ConfigurationError: There is no such place here.
        """
        ...

    def folders(self) -> FolderStore:
        """Where folders that a later run needs are kept."""
        ...

    def data_root(self) -> str:
        """The fsspec URL under which manifests, reports and the state of trainings are kept."""
        ...

    def lake(self) -> str:
        """The fsspec URL under which evaluation metrics are kept."""
        ...

    def samples(self, name: str) -> str:
        """Where the images of the sample data set of this name are, fetched if they weren't: a path or fsspec URL.

        Raises:
            DownloadFailed: As `infra.stores.sample_data.fetch` does.
        """
        ...

    def data_catalogue(self) -> DataCatalogue | None:
        """Where people look for data versions; None on one machine, where their folder is all there is."""
        ...

    def notices(self) -> Notices | None:
        """Notices of models that were registered by whomever; None where nobody sends any.

        Raises: NotProvisioned.
        """
        ...

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Wait for the only holder of this name (which may have slashes) on all machines of the place, and hold it."""
        ...

    def ledger(self) -> ReleaseLedger:
        """What happened to which version in which environment."""
        ...

    def image_builder(self) -> ImageBuilder:
        """Where container images are built and kept.

        Raises:
            ConfigurationError: Nothing at this place can build them.
        """
        ...

    def results(self) -> "AzureResults | None":
        """The Prefect block that keeps results of runs; None where they are kept in a folder.

        Raises: NotProvisioned.
        """
        ...

    def telemetry(self) -> str:
        """The connection string of Application Insights; empty where the place has none.

        Raises: NotProvisioned.
        """
        ...

    def checks(self, environments: Sequence[str], *, required: bool) -> list[Finding]:
        """Check the platform and these environments of this place, beyond what the machine is checked for.

        Args:
            environments: Names of release targets at this place.
            required: Whether one that is not provisioned blocks.
        """
        ...


def _local(settings: Settings) -> Backend:
    from infra.local.backend import LocalBackend

    return LocalBackend(settings)


def _azure(settings: Settings) -> Backend:
    from infra.azure.backend import AzureBackend

    return AzureBackend(settings)


BACKENDS: Final[dict[Place, Callable[[Settings], Backend]]] = {"local": _local, "azure": _azure}
AZURE_SDK: Final = "azure.core.exceptions"

# A source may lie in Azure whatever the backend; programs open its URL without knowing whose identity that takes. The
# class is imported with the first such URL. fsspec's own table names the package adlfs for it: `clobber` replaces that.
for _protocol in ("abfs", "abfss", "az"):
    fsspec.register_implementation(_protocol, "infra.azure.storage.filesystem.AzureFiles", clobber=True)


def backend(settings: Settings) -> Backend:
    """Everything at the place where the platform is."""
    return BACKENDS[settings.backend](settings)


def release_target(name: str, settings: Settings) -> ReleaseTarget:
    """The environment of this name, at the place where it is.

    Raises:
        ConfigurationError: There is no such environment, or its file is wrong.
    """
    environment = load_environment(name, settings.environments)
    return BACKENDS[environment.backend or settings.backend](settings).release_target(environment)


def trainer(settings: Settings) -> Trainer | None:
    """Where networks are fitted; None for the process that asks.

    Raises:
        ConfigurationError: There is no such trainer file, it is wrong, or it needs the other backend.
    """
    file = load_trainer(settings.trainer, settings.trainers)
    if file.kind == "process":
        return None
    if file.kind == "kubernetes":
        from infra.kubernetes.trainer import PrefectTrainer

        return PrefectTrainer(file)
    return backend(settings).trainer(file)


def connection_string() -> str:
    """The connection string of this process's platform; as `Backend.telemetry`."""
    return backend(get_settings()).telemetry()


def load_result_blocks() -> None:
    """Prefect reads results by blocks whose classes are loaded: load those of all places."""
    import infra.azure.storage.prefect_results  # noqa: F401


def translate(error: Exception) -> PlatformError | None:
    """What an SDK of a place raised is called here; None for any other error, or where no SDK is loaded."""
    if AZURE_SDK not in sys.modules:
        return None
    from infra.azure.access.errors import error_of_step

    return error_of_step(error)
