"""What a deployment will cost a month, before it is provisioned.

Resources and SKUs are read from the composed template, prices from `infra/arm/prices.yaml`. What has no price is listed
as such; what is paid only while it runs (GPU machines) is shown by the hour of use, outside of the total.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import Field, ValidationError

from infra.azure.provisioning.arm_expansion import Planned, planned
from infra.azure.provisioning.templates import TEMPLATES, Composed
from infra.errors import ConfigurationError
from model.values import Frozen

CONTAINERS: Final = 2
"""Of an environment on container instances, from its second release on: the version before stays warm."""
PRICES: Final = TEMPLATES / "prices.yaml"


class Meter(Frozen):
    unit: str
    skus: dict[str, float]


class Assumptions(Frozen):
    """What no template knows."""

    stored_gb: float = Field(ge=0)
    logs_gb: float = Field(ge=0)
    secret_operations_10k: float = Field(ge=0)
    hours: float = Field(gt=0)


class PriceTable(Frozen):
    as_of: date
    currency: str
    region: str
    source: str
    assumptions: Assumptions
    meters: dict[str, Meter]
    free: tuple[str, ...]


class CostLine(Frozen):
    """One thing that is paid."""

    resource: str
    """Its name; `*` stands for what Azure makes unique."""
    sku: str
    quantity: float
    unit: str
    price: float
    """Of one unit."""
    cost: float
    """A month; of an hour of use in `CostEstimate.on_demand`."""


class CostEstimate(Frozen):
    lines: tuple[CostLine, ...]
    on_demand: tuple[CostLine, ...]
    """What is paid only while it runs: the cost of one machine for one hour."""
    unpriced: tuple[str, ...]
    """What the price table lacks, or has for another region; the total leaves it out."""
    total: float
    """A month, without `on_demand` and `unpriced`."""
    currency: str
    region: str
    as_of: date
    source: str


@dataclass(frozen=True)
class _Usage:
    meter: str
    sku: str
    quantity: float
    resource: str = ""
    on_demand: bool = False


Rule = Callable[[dict[str, Any], Assumptions], Iterator[_Usage]]


def estimate(composed: Composed, prices: Path = PRICES) -> CostEstimate:
    """The monthly cost of a composed deployment, by the list prices of a table.

    Raises:
        ConfigurationError: The price table is wrong; what is wrong is named.
    """
    table = _table(prices)
    lines: list[CostLine] = []
    on_demand: list[CostLine] = []
    unpriced = [] if composed.location == table.region else [_elsewhere(composed, table)]
    for resource in planned(composed):
        if resource.type in table.free:
            continue
        if resource.type not in RULES:
            unpriced.append(f"{resource.name}: no price of {resource.type}")
            continue
        for usage in RULES[resource.type](resource.body, table.assumptions):
            _add(usage, resource, table, (on_demand if usage.on_demand else lines), unpriced)
    for usage in _released(composed, table.assumptions):
        _add(usage, None, table, lines, unpriced)
    return CostEstimate(
        lines=tuple(lines),
        on_demand=tuple(on_demand),
        unpriced=tuple(unpriced),
        total=round(sum(line.cost for line in lines), 2),
        currency=table.currency,
        region=table.region,
        as_of=table.as_of,
        source=table.source,
    )


def _table(path: Path) -> PriceTable:
    try:
        return PriceTable.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(f"`{'.'.join(map(str, item['loc']))}`: {item['msg']}" for item in error.errors())
        raise ConfigurationError(f"{path}: {wrong}") from error


def _elsewhere(composed: Composed, table: PriceTable) -> str:
    return f"prices are those of {table.region}, and {composed.location} may differ"


def _add(
    usage: _Usage, resource: Planned | None, table: PriceTable, lines: list[CostLine], unpriced: list[str]
) -> None:
    name = usage.resource or (resource.name if resource else "")
    meter = table.meters.get(usage.meter)
    price = meter.skus.get(usage.sku) if meter else None
    if meter is None or price is None:
        unpriced.append(f"{name}: no price of {usage.meter} {usage.sku}")
        return
    cost = round(usage.quantity * price, 2)
    lines.append(
        CostLine(resource=name, sku=usage.sku, quantity=usage.quantity, unit=meter.unit, price=price, cost=cost)
    )


def _released(composed: Composed, assumed: Assumptions) -> Iterator[_Usage]:
    """What releases put beside the template's resources: the live version's container and that of the one before."""
    if composed.container is not None:
        cores, memory = composed.container
        hours = CONTAINERS * assumed.hours
        usage = _Usage("container-cpu", "Standard", cores * hours, "scoring containers, live and previous")
        yield usage
        yield replace(usage, meter="container-memory", quantity=memory * hours)


def _cluster(body: dict[str, Any], assumed: Assumptions) -> Iterator[_Usage]:
    name = body["name"]
    yield _Usage("cluster", body["sku"]["tier"], assumed.hours)
    yield _Usage("load-balancer", "Standard", assumed.hours, f"{name}: load balancer")
    yield _Usage("public-address", "Standard", assumed.hours, f"{name}: outbound address")
    for pool in body["properties"]["agentPoolProfiles"]:
        where = f"{name}: pool {pool['name']}"
        machine = "spot-machine" if pool.get("scaleSetPriority") == "Spot" else "machine"
        if pool.get("enableAutoScaling") and pool["minCount"] == 0:
            yield _Usage(machine, pool["vmSize"], 1, f"{where} (0 to {pool['maxCount']})", on_demand=True)
            continue
        count = pool["count"]
        yield _Usage(machine, pool["vmSize"], count * assumed.hours, where)
        yield _Usage("disk", "premium-128", count, f"{where}, disks")


def _database(body: dict[str, Any], assumed: Assumptions) -> Iterator[_Usage]:
    properties = body["properties"]
    servers = 2 if properties["highAvailability"]["mode"] == "ZoneRedundant" else 1
    yield _Usage("database", body["sku"]["name"], servers * assumed.hours)
    yield _Usage("database-storage", "Premium", servers * properties["storage"]["storageSizeGB"])


def _machine(body: dict[str, Any], assumed: Assumptions) -> Iterator[_Usage]:
    yield _Usage("machine", body["properties"]["hardwareProfile"]["vmSize"], assumed.hours)
    size = body["properties"]["storageProfile"]["osDisk"]["diskSizeGB"]
    yield _Usage("disk", f"standard-ssd-{size}", 1, f"{body['name']}: disk")


def _plan(body: dict[str, Any], assumed: Assumptions) -> Iterator[_Usage]:
    yield _Usage("web-plan", body["sku"]["name"], body["sku"]["capacity"] * assumed.hours)


def _log_alert(body: dict[str, Any], _: Assumptions) -> Iterator[_Usage]:
    yield _Usage("log-alert", body["properties"]["evaluationFrequency"], 1)


def _logs(body: dict[str, Any], assumed: Assumptions) -> Iterator[_Usage]:
    yield _Usage("logs", body["properties"]["sku"]["name"], assumed.logs_gb)


def _vault(body: dict[str, Any], assumed: Assumptions) -> Iterator[_Usage]:
    yield _Usage("vault", body["properties"]["sku"]["name"], assumed.secret_operations_10k)


def _storage(body: dict[str, Any], assumed: Assumptions) -> Iterator[_Usage]:
    yield _Usage("storage", body["sku"]["name"], assumed.stored_gb)


def _monthly(meter: str, sku: str | None = None) -> Rule:
    def usage(body: dict[str, Any], _: Assumptions) -> Iterator[_Usage]:
        yield _Usage(meter, sku or body["sku"]["name"], 1)

    return usage


def _hourly(meter: str) -> Rule:
    def usage(_: dict[str, Any], assumed: Assumptions) -> Iterator[_Usage]:
        yield _Usage(meter, "Standard", assumed.hours)

    return usage


RULES: Final[dict[str, Rule]] = {
    "Microsoft.Compute/virtualMachines": _machine,
    "Microsoft.ContainerRegistry/registries": _monthly("registry"),
    "Microsoft.ContainerService/managedClusters": _cluster,
    "Microsoft.DBforPostgreSQL/flexibleServers": _database,
    "Microsoft.Insights/metricAlerts": _monthly("metric-alert", "Standard"),
    "Microsoft.Insights/scheduledQueryRules": _log_alert,
    "Microsoft.KeyVault/vaults": _vault,
    "Microsoft.Network/natGateways": _hourly("nat-gateway"),
    "Microsoft.Network/privateDnsZones": _monthly("dns-zone", "Private"),
    "Microsoft.Network/privateEndpoints": _hourly("private-endpoint"),
    "Microsoft.Network/publicIPAddresses": _hourly("public-address"),
    "Microsoft.OperationalInsights/workspaces": _logs,
    "Microsoft.Storage/storageAccounts": _storage,
    "Microsoft.Web/serverfarms": _plan,
}
"""What of a resource is metered."""
