"""A platform and one environment on the bench, without what the tests of the adapters don't need."""

from typing import Any

from azure.mgmt.resource import ResourceManagementClient

from infra.azure.access.credentials import credential
from infra.azure.access.resources import PLATFORM, deployment_name, forget_resources, resource_group
from infra.azure.provisioning.templates import Composed
from infra.settings import Settings
from tests.support.azure.bench import SUBSCRIPTION

LOCATION = "westeurope"


def _resource(type_: str, version: str, name: str, **rest: Any) -> dict[str, Any]:
    return {"type": type_, "apiVersion": version, "name": name, "location": LOCATION, **rest}


def _common(suffix: str) -> list[dict[str, Any]]:
    return [
        _resource(
            "Microsoft.Storage/storageAccounts",
            "2023-05-01",
            f"stahc{suffix}",
            sku={"name": "Standard_LRS"},
            kind="StorageV2",
            properties={"isHnsEnabled": True},
        ),
        _resource(
            "Microsoft.KeyVault/vaults",
            "2023-07-01",
            f"kv-ahc-{suffix}",
            properties={
                "tenantId": "[subscription().tenantId]",
                "sku": {"family": "A", "name": "standard"},
                "enableRbacAuthorization": True,
            },
        ),
        _resource("Microsoft.OperationalInsights/workspaces", "2023-09-01", f"log-ahc-{suffix}", properties={}),
        _resource(
            "Microsoft.Insights/components",
            "2020-02-02",
            f"appi-ahc-{suffix}",
            kind="web",
            properties={"Application_Type": "web"},
        ),
        _resource("Microsoft.ManagedIdentity/userAssignedIdentities", "2023-01-31", f"id-ahc-{suffix}"),
    ]


def _id(kind: str, name: str) -> str:
    return f"resourceId('{kind}', '{name}')"


def _common_outputs(suffix: str) -> dict[str, str]:
    insights = _id("Microsoft.Insights/components", f"appi-ahc-{suffix}")
    workspace = _id("Microsoft.OperationalInsights/workspaces", f"log-ahc-{suffix}")
    return {
        "location": LOCATION,
        "uniqueSuffix": "[uniqueString(resourceGroup().id)]",
        "storageAccount": f"stahc{suffix}",
        "keyVaultUrl": f"https://kv-ahc-{suffix}.vault.azure.net/",
        "applicationInsightsConnectionString": f"[reference({insights}, '2020-02-02').ConnectionString]",
        "logAnalyticsId": f"[{workspace}]",
    }


def _identity(suffix: str) -> tuple[str, str]:
    identity = _id("Microsoft.ManagedIdentity/userAssignedIdentities", f"id-ahc-{suffix}")
    return f"[{identity}]", f"[reference({identity}, '2023-01-31').clientId]"


def _containers(suffix: str, *names: str) -> list[dict[str, Any]]:
    return [
        {
            "type": "Microsoft.Storage/storageAccounts/blobServices/containers",
            "apiVersion": "2023-05-01",
            "name": f"stahc{suffix}/default/{name}",
            "dependsOn": [f"[{_id('Microsoft.Storage/storageAccounts', f'stahc{suffix}')}]"],
        }
        for name in names
    ]


def _platform() -> tuple[list[dict[str, Any]], dict[str, str]]:
    ids = {
        "storageAccount": ("Microsoft.Storage/storageAccounts", "stahcplatform"),
        "keyVault": ("Microsoft.KeyVault/vaults", "kv-ahc-platform"),
        "applicationInsights": ("Microsoft.Insights/components", "appi-ahc-platform"),
        "containerRegistry": ("Microsoft.ContainerRegistry/registries", "crahcplatform"),
    }
    resources = [
        *_common("platform"),
        *_containers("platform", "data", "models", "results"),
        _resource(
            "Microsoft.ContainerRegistry/registries",
            "2023-07-01",
            "crahcplatform",
            sku={"name": "Standard"},
            properties={"adminUserEnabled": False},
        ),
        _resource(
            "Microsoft.MachineLearningServices/workspaces",
            "2024-04-01",
            "mlw-ahc-platform",
            identity={"type": "SystemAssigned"},
            properties={name: f"[{_id(*target)}]" for name, target in ids.items()},
            dependsOn=[f"[{_id(*target)}]" for target in ids.values()],
        ),
    ]
    identity, client = _identity("platform")
    outputs = {
        **_common_outputs("platform"),
        "containerRegistry": "crahcplatform",
        "registryLoginServer": "crahcplatform.azurecr.io",
        "workspace": "mlw-ahc-platform",
        "trainingIdentityId": identity,
        "trainingIdentityClientId": client,
        "pipelinesIdentityId": identity,
    }
    return resources, outputs


def _environment(name: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    identity, client = _identity(name)
    workspace = _id("Microsoft.OperationalInsights/workspaces", f"log-ahc-{name}")
    outputs = {
        **_common_outputs(name),
        "identityId": identity,
        "identityClientId": client,
        "logAnalyticsCustomerId": f"[reference({workspace}, '2023-09-01').customerId]",
        "endpointSubnetId": f"[resourceId('Microsoft.Network/virtualNetworks/subnets', 'vnet-ahc-{name}', 'endpoint')]",
        "dnsZone": f"{name}.ahc.internal",
        "webApp": f"app-ahc-{name}",
    }
    return [*_common(name), *_containers(name, "bundles", "records"), *_network(name), *_web_app(name)], outputs


def _network(name: str) -> list[dict[str, Any]]:
    delegation = {
        "name": "containers",
        "properties": {"serviceName": "Microsoft.ContainerInstance/containerGroups"},
    }
    subnet = {"name": "endpoint", "properties": {"addressPrefix": "10.0.0.0/27", "delegations": [delegation]}}
    return [
        _resource(
            "Microsoft.Network/virtualNetworks",
            "2024-03-01",
            f"vnet-ahc-{name}",
            properties={"addressSpace": {"addressPrefixes": ["10.0.0.0/24"]}, "subnets": [subnet]},
        ),
        {**_resource("Microsoft.Network/privateDnsZones", "2020-06-01", f"{name}.ahc.internal"), "location": "global"},
    ]


def _web_app(name: str) -> list[dict[str, Any]]:
    plan, app = _id("Microsoft.Web/serverfarms", f"asp-ahc-{name}"), _id("Microsoft.Web/sites", f"app-ahc-{name}")
    identity = _id("Microsoft.ManagedIdentity/userAssignedIdentities", f"id-ahc-{name}")
    site = {
        "kind": "app,linux,container",
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {f"[{identity}]": {}}},
        "properties": {"serverFarmId": f"[{plan}]", "httpsOnly": True},
    }
    return [
        _resource(
            "Microsoft.Web/serverfarms",
            "2023-12-01",
            f"asp-ahc-{name}",
            kind="linux",
            sku={"name": "S1"},
            properties={"reserved": True},
        ),
        _resource(
            "Microsoft.Web/sites", "2023-12-01", f"app-ahc-{name}", **site, dependsOn=[f"[{plan}]", f"[{identity}]"]
        ),
        _resource(
            "Microsoft.Web/sites/slots",
            "2023-12-01",
            f"app-ahc-{name}/candidate",
            **site,
            dependsOn=[f"[{app}]"],
        ),
    ]


def composed(name: str) -> Composed:
    """The template of an environment, or of `platform`."""
    resources, outputs = _platform() if name == PLATFORM else _environment(name)
    template = {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "resources": resources,
        "outputs": {key: {"type": "string", "value": value} for key, value in outputs.items()},
    }
    return Composed(template=template, parameters={}, location=LOCATION)


def provision(settings: Settings, *environments: str) -> None:
    """Deploy the platform and these environments on the bench."""
    for name in (PLATFORM, *environments):
        deploy(name, settings)
    forget_resources()


def make_model_registry(name: str, group: str = "rg-ahc-platform", subscription: str = SUBSCRIPTION) -> str:
    """Make an Azure ML registry, which the platform's templates don't; answers its resource id."""
    kind = "Microsoft.MachineLearningServices/registries"
    registry = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{kind}/{name}"
    content = {
        "location": LOCATION,
        "identity": {"type": "SystemAssigned"},
        "properties": {"regionDetails": [{"location": LOCATION}]},
    }
    with ResourceManagementClient(credential(), subscription) as client:
        client.resources.begin_create_or_update_by_id(registry, "2024-04-01", content).result()
    return registry


def deploy(name: str, settings: Settings, subscription: str = SUBSCRIPTION) -> None:
    """Deploy one part into this subscription."""
    with ResourceManagementClient(credential(), subscription) as client:
        group = resource_group(name, settings)
        client.resource_groups.create_or_update(group, {"location": LOCATION})
        client.deployments.begin_create_or_update(
            group,
            deployment_name(name, settings),
            {"properties": {"mode": "Incremental", "template": composed(name).template}},
        ).result()
