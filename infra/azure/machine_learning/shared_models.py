"""Versions shared to an Azure ML registry, from which other workspaces and subscriptions take models.

`azure-ai-ml` reaches registries through operations that are not published. Here, those that are get called:
https://learn.microsoft.com/rest/api/azureml/registry-model-versions
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.azure.access.clients import resource_client
from infra.azure.access.errors import azure_errors, if_present
from infra.azure.access.resource_manager import ask
from infra.azure.access.resources import subscription
from infra.azure.machine_learning.registry import DIGEST, split_tags
from infra.azure.machine_learning.tracking import STUDIO
from infra.azure.storage.blobs import blob_options
from infra.azure.storage.folders import TRANSFERS
from infra.config.environments import Environment
from infra.errors import ConfigurationError, NotProvisioned, ServiceUnavailable
from infra.ports import RegisteredModel
from infra.settings import Settings
from infra.stores.folder_files import files_of
from infra.waiting import polls

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

API_VERSION: Final = "2024-04-01"
REGISTRIES: Final = "Microsoft.MachineLearningServices/registries"
FOLDER: Final = "bundle"
READY: Final = "Succeeded"
ENDED_BADLY: Final = frozenset({"Failed", "Canceled"})
CREATION_SECONDS: Final = 600.0


class AmlSharedModels:
    """The SharedModels of the Azure ML registry that an environment's file names (`azure.model_registry`)."""

    def __init__(self, registry: str, environment: Environment, settings: Settings) -> None:
        self._registry = registry
        self._environment = environment
        self._settings = settings

    def share(self, model: RegisteredModel, bundle: Path) -> str:
        """See that the registry has this version with these bytes; answers where people look at it.

        The version is made after its last file is there: what was killed before counts for nothing.

        Raises:
            ConfigurationError: There is no such registry, or it has the version with other bytes.
            NotProvisioned: The registry went away meanwhile.
        """
        from azure.core.exceptions import ResourceNotFoundError

        with azure_errors(f"sharing {model.label} to the Azure ML registry {self._registry}"):
            try:
                registry = registry_id(self._registry, self._environment, self._settings)
                version = f"{registry}/models/{model.name}/versions/{model.version}"
                if not self._has(version, model):
                    self._create(version, model, bundle)
            except ResourceNotFoundError as error:
                raise NotProvisioned(
                    f"The Azure ML registry {self._registry} or its storage is not there: {error.message}"
                ) from error
        return f"{STUDIO}/registries/{self._registry}/models/{model.name}/version/{model.version}"

    def _has(self, version: str, model: RegisteredModel) -> bool:
        """Whether the registry has the version with these bytes; waits where another run is making it.

        One with these bytes that Azure failed to make is removed: no other place of its files would be accepted.
        """
        for _ in polls(CREATION_SECONDS, longest_pause=5.0):
            answer = if_present(lambda: self._resources(version).get_by_id(version, API_VERSION))
            if answer is None:
                return False
            digest = (answer.properties.get("properties") or {}).get(DIGEST, "unknown")
            if digest != model.digest:
                raise ConfigurationError(
                    f"The Azure ML registry {self._registry} has {model.label} already, with the digest {digest}; "
                    f"the version that is released has {model.digest}.",
                    next_step="What is there stays. Name another registry in `azure.model_registry`, or register a "
                    "version whose number is free there.",
                )
            state = answer.properties.get("provisioningState", READY)
            if state == READY:
                return True
            if state in ENDED_BADLY:
                self._resources(version).begin_delete_by_id(version, API_VERSION).result()
                return False
        raise ServiceUnavailable(f"The Azure ML registry {self._registry} is still making {model.label}.")

    def _create(self, version: str, model: RegisteredModel, bundle: Path) -> None:
        from azure.core.exceptions import ResourceExistsError

        folder = _upload(version, bundle)
        content = {
            "modelType": "custom_model",
            "modelUri": folder,
            "tags": split_tags(model.tags),
            "properties": {DIGEST: model.digest},
        }
        try:
            self._resources(version).begin_create_or_update_by_id(
                version, API_VERSION, {"properties": content}
            ).result()
        except ResourceExistsError:
            # Another environment's release was first.
            if not self._has(version, model):
                raise

    @staticmethod
    def _resources(resource_id: str) -> Any:
        return resource_client(resource_id.split("/")[2]).resources


def registry_id(registry: str, environment: Environment, settings: Settings) -> str:
    """The resource id of the Azure ML registry of this name, in the environment's subscription or the platform's.

    Raises:
        ConfigurationError: This identity sees none.
    """
    searched = dict.fromkeys((subscription(settings, environment), subscription(settings)))
    with azure_errors(f"looking for the Azure ML registry {registry}"):
        for subscription_id in searched:
            for item in resource_client(subscription_id).resources.list(filter=f"resourceType eq '{REGISTRIES}'"):
                if str(item.name).lower() == registry.lower():
                    return str(item.id)
    raise ConfigurationError(
        f"`azure.model_registry` of {environment.name} names `{registry}`, but this identity sees no such Azure ML "
        f"registry in the subscription {' or '.join(searched)}.",
        next_step="Correct the name, or have the role `AzureML Registry User` assigned on the registry.",
    )


def _upload(version: str, bundle: Path) -> str:
    """Upload all files to a place of their own; answers its URI, without the signature that lets write there."""
    from azure.storage.blob import ContainerClient

    pending = ask("POST", version, "startPendingUpload", API_VERSION, {"pendingUploadType": "TemporaryBlobReference"})
    place = pending["blobReferenceForConsumption"]
    with (
        ContainerClient.from_container_url(place["credential"]["sasUri"], **blob_options()) as container,
        ThreadPoolExecutor(TRANSFERS, thread_name_prefix="share") as pool,
    ):
        list(pool.map(lambda path: _upload_file(container, path, bundle), files_of(bundle)))
    return f"{place['blobUri']}/{FOLDER}"


def _upload_file(container: "ContainerClient", path: Path, bundle: Path) -> None:
    with path.open("rb") as file:
        name = f"{FOLDER}/{path.relative_to(bundle).as_posix()}"
        container.upload_blob(name, file, length=path.stat().st_size, overwrite=True)
