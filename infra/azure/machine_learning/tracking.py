"""Experiment tracking in the platform's Azure ML workspace, through its MLflow API."""

from functools import lru_cache
from typing import Final

from infra.azure.access.errors import azure_errors
from infra.azure.access.resources import PlatformResources, platform_resources
from infra.azure.machine_learning.registry import ml_client
from infra.errors import NotProvisioned
from infra.settings import Settings
from infra.stores.mlflow_tracking import SQLITE, MlflowTracker, server_link

STUDIO: Final = "https://ml.azure.com"


def aml_tracker(settings: Settings) -> MlflowTracker:
    """The tracker of `AHC_MLFLOW_TRACKING_URI`, else of the workspace.

    The workspace's MLflow API is reached through the plugin `azureml-mlflow`, which signs in by itself
    (DefaultAzureCredential). It was not verified against a live workspace.
    """
    if settings.mlflow_tracking_uri:
        uri = settings.mlflow_tracking_uri
        # A server says where files go; beside a bare database MLflow would put them where the program runs.
        artifacts = settings.path("mlflow", "artifacts") if uri.startswith(SQLITE) else None
        return MlflowTracker(uri, server_link(uri), artifacts=artifacts)
    platform = platform_resources(settings)
    return MlflowTracker(_tracking_uri(platform), lambda _, run_id: studio_link(platform, run_id))


def studio_link(platform: PlatformResources, run_id: str) -> str:
    """Where Azure ML Studio shows a run."""
    return f"{STUDIO}/runs/{run_id}?wsid={workspace_id(platform)}"


def workspace_id(platform: PlatformResources) -> str:
    """The resource id of the Azure ML workspace."""
    return platform.resource_id("Microsoft.MachineLearningServices/workspaces", platform.workspace)


@lru_cache(maxsize=4)
def _tracking_uri(platform: PlatformResources) -> str:
    with azure_errors(f"reading the workspace {platform.workspace}"):
        client = ml_client(platform)
        uri = client.workspaces.get(platform.workspace).mlflow_tracking_uri
    if not uri:
        raise NotProvisioned(f"The workspace {platform.workspace} has no MLflow tracking URI.")
    return str(uri)
