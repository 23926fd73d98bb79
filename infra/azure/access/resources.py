"""What infrastructure as code has made, as the outputs of its deployments tell: no name is configured twice.

The templates are `infra/arm/platform.json` (shared: data, registries, training) and `infra/arm/environment.json` (for
each release target). A deployment keeps its outputs in Azure, under a name that is known here.
"""

from functools import lru_cache
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from infra.azure.access.clients import resource_client
from infra.azure.access.errors import azure_errors, if_present
from infra.config.environments import Environment
from infra.errors import ConfigurationError, NotProvisioned
from infra.settings import Settings
from model.values import Frozen

PLATFORM = "platform"
"""The name of the shared part where an environment's name is asked for."""


class _Outputs(Frozen):
    # A template may have more outputs than a program needs.
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    subscription_id: str
    resource_group: str
    location: str

    def resource_id(self, kind: str, name: str) -> str:
        """The id of a resource of this resource group; its type begins with `Microsoft.`."""
        return f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}/providers/{kind}/{name}"


class PlatformResources(_Outputs):
    """Outputs of `platform.json`; an empty string where a part was not asked for."""

    storage_account: str
    key_vault_url: str
    container_registry: str
    """Its resource name; the login server is `NAME.azurecr.io`."""
    registry_login_server: str
    workspace: str
    """Name of the Azure ML workspace."""
    workspace_storage_account: str = ""
    """Holds the queue in which Event Grid puts the workspace's events."""
    log_analytics_id: str
    """Resource id of the workspace."""
    application_insights_connection_string: str
    training_identity_id: str
    """Resource id of the user-assigned identity of training pods and jobs."""
    training_identity_client_id: str
    pipelines_identity_id: str = ""
    """Resource id of the user-assigned identity as which Azure Pipelines work here."""
    unique_suffix: str = ""
    """Makes names unique in all of Azure."""
    cluster: str = ""
    """Name of the AKS cluster."""
    compute: str = ""
    """Name under which the cluster is attached to the Azure ML workspace."""
    database_host: str = ""


class EnvironmentResources(_Outputs):
    """Outputs of `environment.json`."""

    storage_account: str
    """Holds the containers `bundles` and `records` of this environment."""
    key_vault_url: str
    identity_id: str
    """Resource id of the user-assigned identity of the scoring containers."""
    identity_client_id: str
    application_insights_connection_string: str
    log_analytics_id: str
    log_analytics_customer_id: str
    unique_suffix: str = ""
    """Makes names unique in all of Azure, such as the DNS labels of the scoring containers."""
    endpoint_subnet_id: str = ""
    dns_zone: str = ""
    """Private DNS zone in which the record `scoring` leads to what is live."""
    web_app: str = ""
    """Name of the web app with the slot `candidate`."""


Resources = TypeVar("Resources", PlatformResources, EnvironmentResources)


def resource_group(name: str, settings: Settings) -> str:
    """The resource group of an environment, or of `platform`."""
    return f"rg-{settings.azure_prefix}-{name}"


def deployment_name(name: str, settings: Settings) -> str:
    """The ARM deployment whose outputs describe an environment, or `platform`."""
    return f"{settings.azure_prefix}-{name}"


def subscription(settings: Settings, environment: Environment | None = None) -> str:
    """The subscription of an environment, or of the platform.

    Raises:
        ConfigurationError: None is set.
    """
    subscription_id = (environment.azure.subscription_id if environment else None) or settings.azure_subscription_id
    if not subscription_id:
        raise ConfigurationError(
            "AHC_AZURE_SUBSCRIPTION_ID is not set, so the subscription is unknown.",
            next_step="export AHC_AZURE_SUBSCRIPTION_ID=$(az account show --query id --output tsv)",
        )
    return subscription_id


def platform_resources(settings: Settings) -> PlatformResources:
    """The shared resources.

    Raises:
        NotProvisioned: `platform.json` has not been deployed.
    """
    return _outputs(PlatformResources, PLATFORM, subscription(settings), settings)


def environment_resources(environment: Environment, settings: Settings) -> EnvironmentResources:
    """The resources of one release target; raises as `platform_resources` does."""
    return _outputs(EnvironmentResources, environment.name, subscription(settings, environment), settings)


def forget_resources() -> None:
    """Ask Azure again: something was provisioned or removed."""
    _read_outputs.cache_clear()


def _outputs(kind: type[Resources], name: str, subscription_id: str, settings: Settings) -> Resources:
    group, deployment = resource_group(name, settings), deployment_name(name, settings)
    fix = f"Provision it: `ahc run infrastructure -p mode=provision -p environment={name}`."
    outputs = _read_outputs(subscription_id, group, deployment)
    if outputs is None:
        raise NotProvisioned(f"There is no finished deployment `{deployment}` in `{group}`.", next_step=fix)
    try:
        return kind.model_validate({"subscriptionId": subscription_id, "resourceGroup": group, **outputs})
    except ValidationError as error:
        missing = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        raise NotProvisioned(f"The deployment `{deployment}` lacks outputs: {missing}.", next_step=fix) from error


@lru_cache(maxsize=16)
def _read_outputs(subscription_id: str, group: str, deployment: str) -> dict[str, Any] | None:
    deployments = resource_client(subscription_id).deployments
    with azure_errors(f"reading the outputs of the deployment {deployment}"):
        state = if_present(lambda: deployments.get(group, deployment))
    properties = state.properties if state else None
    if properties is None or properties.provisioning_state != "Succeeded":
        return None
    return {name: output["value"] for name, output in (properties.outputs or {}).items()}
