"""Data versions as data assets of the Azure ML workspace, where people look for data and lineage starts."""

from typing import Any, Final

from infra.azure.access.errors import azure_errors, if_present
from infra.azure.access.resources import PlatformResources, platform_resources
from infra.azure.machine_learning.registry import ml_client, split_tags
from infra.azure.machine_learning.tracking import STUDIO, workspace_id
from infra.errors import NotProvisioned
from infra.settings import Settings
from model.values import DataVersion

MANIFEST_TAG: Final = "manifest"


class AmlData:
    """The DataCatalogue of the platform's Azure ML workspace.

    A data version is a `uri_folder` whose version is its hash. An asset's folder is for good: another writer can only
    have made the same one.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def register(self, data: DataVersion) -> str:
        platform = platform_resources(self._settings)
        doing = f"listing the data {data.name}@{data.version} in the workspace {platform.workspace}"
        with azure_errors(doing, NotProvisioned(f"The Azure ML workspace `{platform.workspace}` is not there.")):
            _create_once(platform, data)
        return data_link(platform, data.name, data.version)


def _create_once(platform: PlatformResources, data: DataVersion) -> None:
    from azure.core.exceptions import ResourceExistsError

    assets = ml_client(platform).data
    if if_present(lambda: assets.get(data.name, data.version)):
        return
    try:
        assets.create_or_update(_asset(data))
    except ResourceExistsError:
        # Somebody was first; what does not answer now is another conflict.
        assets.get(data.name, data.version)


def data_link(platform: PlatformResources, name: str, version: str) -> str:
    """Where Azure ML Studio shows a data asset."""
    return f"{STUDIO}/data/{name}/{version}/details?wsid={workspace_id(platform)}"


def _asset(data: DataVersion) -> Any:
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import Data

    return Data(
        name=data.name,
        version=data.version,
        type=AssetTypes.URI_FOLDER,
        # Azure ML knows the secure spelling of the protocol only.
        path=data.manifest_uri.rpartition("/")[0].replace("abfs://", "abfss://", 1) + "/",
        description=f"{data.images:,} labelled images, listed in a manifest.",
        tags=split_tags(
            {
                "images": str(data.images),
                "labels": ", ".join(data.labels),
                "source": data.source_uri,
                MANIFEST_TAG: data.manifest_uri,
            }
        ),
    )
