"""Data versions as data assets of the Azure ML workspace, where people look for data and lineage starts."""

from contextlib import suppress
from typing import Any, Final

from infra.azure.access.errors import azure_errors
from infra.azure.access.resources import PlatformResources, platform_resources
from infra.azure.machine_learning.registry import ml_client, split_tags
from infra.azure.machine_learning.tracking import STUDIO, workspace_id
from infra.errors import NotProvisioned
from infra.ports import DataEntry
from infra.settings import Settings

MANIFEST_TAG: Final = "manifest"


class AmlData:
    """The DataCatalogue of the platform's Azure ML workspace.

    A data version is a `uri_folder` whose version is its hash. An asset's folder is for good: another writer can only
    have made the same one.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def register(self, entry: DataEntry) -> str:
        platform = platform_resources(self._settings)
        with azure_errors(f"listing the data {entry.name}@{entry.version} in the workspace {platform.workspace}"):
            _create_once(platform, entry)
        return data_link(platform, entry.name, entry.version)


def _create_once(platform: PlatformResources, entry: DataEntry) -> None:
    from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

    data = ml_client(platform.subscription_id, platform.resource_group, platform.workspace).data
    with suppress(ResourceNotFoundError):
        data.get(entry.name, entry.version)
        return
    try:
        data.create_or_update(_asset(entry))
    except ResourceExistsError:
        # Somebody was first; what does not answer now is another conflict.
        data.get(entry.name, entry.version)
    except ResourceNotFoundError as error:
        raise NotProvisioned(f"The Azure ML workspace `{platform.workspace}` is not there.") from error


def data_link(platform: PlatformResources, name: str, version: str) -> str:
    """Where Azure ML Studio shows a data asset."""
    return f"{STUDIO}/data/{name}/{version}/details?wsid={workspace_id(platform)}"


def _asset(entry: DataEntry) -> Any:
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import Data

    return Data(
        name=entry.name,
        version=entry.version,
        type=AssetTypes.URI_FOLDER,
        # Azure ML knows the secure spelling of the protocol only.
        path=entry.manifest_uri.rpartition("/")[0].replace("abfs://", "abfss://", 1) + "/",
        description=f"{entry.images:,} labelled images, listed in a manifest.",
        tags=split_tags(
            {
                "images": str(entry.images),
                "labels": ", ".join(entry.labels),
                "source": entry.source_uri,
                MANIFEST_TAG: entry.manifest_uri,
            }
        ),
    )
