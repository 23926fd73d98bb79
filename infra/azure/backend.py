"""Everything that the platform has in an Azure subscription. No SDK is loaded before something is asked for."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

from infra.azure.access.resources import environment_resources, platform_resources
from infra.azure.checks.platform_and_environments import check_environment, check_platform
from infra.azure.container_images.builds import RegistryBuilds
from infra.azure.endpoint.app_service.endpoint import AppServiceEndpoint
from infra.azure.endpoint.container_instances.endpoint import ContainerInstancesEndpoint
from infra.azure.machine_learning.components import AmlPublication
from infra.azure.machine_learning.data_assets import AmlData
from infra.azure.machine_learning.registration_queue import QueuedNotices, platform_notices
from infra.azure.machine_learning.registry import AmlRegistry
from infra.azure.machine_learning.shared_models import AmlSharedModels
from infra.azure.machine_learning.tracking import aml_tracker
from infra.azure.machine_learning.trainer import AmlTrainer
from infra.azure.provisioning.costs import container_costs
from infra.azure.storage.blobs import data_url
from infra.azure.storage.folders import platform_folders
from infra.azure.storage.key_vault import KeyVaultSecrets
from infra.azure.storage.leases import exclusive_name
from infra.azure.storage.ledger import platform_events
from infra.azure.storage.samples import published_sample
from infra.config.environments import Environment
from infra.config.trainers import TrainerFile
from infra.finding import Finding
from infra.ports import Endpoint, FolderStore, RegisteredModel
from infra.releases.ledger import FileLedger
from infra.settings import Place, Settings
from infra.stores.mlflow_tracking import MlflowTracker

if TYPE_CHECKING:
    from infra.azure.storage.prefect_results import AzureResults


class AzureReleaseTarget:
    """An environment with a resource group of its own."""

    place: Final[Place] = "azure"

    def __init__(self, environment: Environment, settings: Settings) -> None:
        self._environment = environment
        self._settings = settings

    def endpoint(self) -> Endpoint:
        app_service = self._environment.azure.endpoint == "app-service"
        kind = AppServiceEndpoint if app_service else ContainerInstancesEndpoint
        return kind(self._environment, self._settings, self.secrets())

    def secrets(self) -> KeyVaultSecrets:
        return KeyVaultSecrets(self._environment.name, self._settings)

    def records_store(self) -> str:
        return data_url(environment_resources(self._environment, self._settings).storage_account, "records")

    def shared_models(self) -> AmlSharedModels | None:
        registry = self._environment.azure.model_registry
        return AmlSharedModels(registry, self._environment, self._settings) if registry else None

    def costs(self) -> str:
        if self._environment.azure.endpoint != "container-instances":
            return "Nothing more: the plan of the web app is paid whichever version is live."
        name, costs = self._environment.name, container_costs(self._environment)
        return (
            f"About {costs.total:.0f} {costs.currency} a month for the containers of {name}, the live version and the "
            f"one before, whichever version is live (list prices of {costs.as_of} for {costs.region}). "
            f"`ahc run infrastructure -p mode=plan -p environment={name}` estimates all of {name}."
        )


class AzureBackend:
    """The platform in its resource group, storage account and Azure ML workspace."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def release_target(self, environment: Environment) -> AzureReleaseTarget:
        return AzureReleaseTarget(environment, self._settings)

    def registry(self) -> AmlRegistry:
        return AmlRegistry(self._settings)

    def champions(self, environments: Sequence[str]) -> dict[str, tuple[RegisteredModel, ...]]:
        models = self.registry()
        names = models.names()
        champions = {item: [models.champion(name, item) for name in names] for item in environments}
        return {item: _last_released_first(filter(None, champions[item]), item) for item in environments}

    def tracker(self) -> MlflowTracker:
        return aml_tracker(self._settings)

    def trainer(self, file: TrainerFile) -> AmlTrainer:
        return AmlTrainer(file, self._settings)

    def publication(self) -> AmlPublication:
        return AmlPublication(self._settings)

    def folders(self) -> FolderStore:
        return platform_folders(self._settings)

    def data_root(self) -> str:
        return data_url(platform_resources(self._settings).storage_account, "data")

    def lake(self) -> str:
        return self.data_root()

    def samples(self, name: str) -> str:
        return published_sample(name, self._settings)

    def data_catalogue(self) -> AmlData:
        return AmlData(self._settings)

    def notices(self) -> QueuedNotices | None:
        return platform_notices(self._settings)

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        return exclusive_name(name, self._settings)

    def ledger(self) -> FileLedger:
        return FileLedger(platform_events(self._settings))

    def image_builder(self) -> RegistryBuilds:
        return RegistryBuilds(self._settings)

    def results(self) -> "AzureResults":
        from infra.azure.storage.prefect_results import platform_results

        return platform_results(self._settings)

    def telemetry(self) -> str:
        return platform_resources(self._settings).application_insights_connection_string

    def checks(self, environments: Sequence[str], *, required: bool) -> list[Finding]:
        """As the Protocol says; nothing more is asked of who can't sign in."""
        findings = check_platform(self._settings)
        if findings[0].ok:
            for name in environments:
                findings += check_environment(name, self._settings, required=required)
        return findings


def _last_released_first(models: Iterable[RegisteredModel], environment: str) -> tuple[RegisteredModel, ...]:
    return tuple(sorted(models, key=lambda model: model.tags.get(f"released.{environment}", ""), reverse=True))
