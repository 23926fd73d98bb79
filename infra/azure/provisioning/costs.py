"""What a deployment will cost a month, before it is provisioned.

Resources and SKUs are those of Azure's what-if, prices those of `infra/arm/prices.yaml`. What has no price is listed as
such; what is paid only while it runs (GPU machines) is shown by the hour of use, outside of the total.
"""

from collections.abc import Callable, Iterator
from datetime import date
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import Field

from infra.azure.provisioning.templates import TEMPLATES
from infra.azure.provisioning.what_if import Plan
from infra.config.environments import Environment
from infra.config.yaml_files import read_yaml
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


class PriceList(Frozen):
    """Where prices are from."""

    as_of: date
    currency: str
    region: str
    source: str


class PriceTable(PriceList):
    assumptions: Assumptions
    meters: dict[str, Meter]
    free: tuple[str, ...]


class CostLine(Frozen):
    """One thing that is paid."""

    resource: str
    sku: str
    quantity: float
    unit: str
    price: float
    """Of one unit."""
    cost: float
    """A month; of an hour of use in `CostEstimate.on_demand`."""


class CostEstimate(PriceList):
    lines: tuple[CostLine, ...]
    on_demand: tuple[CostLine, ...]
    """What is paid only while it runs: the cost of one machine for one hour."""
    unpriced: tuple[str, ...]
    """What the price table lacks, or has for another region; the total leaves it out."""
    total: float
    """A month, without `on_demand` and `unpriced`."""


class _Usage(NamedTuple):
    meter: str
    sku: str
    quantity: float
    part: str = ""
    """Follows the resource's name."""
    on_demand: bool = False


Rule = Callable[[dict[str, Any], Assumptions], Iterator[_Usage]]


def estimate(plan: Plan, environment: Environment | None = None, prices: Path = PRICES) -> CostEstimate:
    """The monthly cost of what a plan makes and leaves as it is, by the list prices of a table.

    Args:
        plan: Of the platform, or of an environment.
        environment: Whose plan it is; the containers that its releases add are counted too. None for the platform.
        prices: The table.

    Raises:
        ConfigurationError: The price table is wrong; what is wrong is named.
    """
    bill = _Bill(read_yaml(prices, PriceTable))
    if plan.location != bill.table.region:
        bill.unpriced.append(f"prices are those of {bill.table.region}, and {plan.location} may differ")
    for change in plan.of("Create", "Modify", "NoChange"):
        if change.type in RULES:
            bill.add_resource(change.name, RULES[change.type], change.body)
        elif change.type not in bill.table.free:
            bill.unpriced.append(f"{change.name}: no price of {change.type}")
    unforeseen = [change for change in plan.of("Unsupported") if change.type not in bill.table.free]
    if unforeseen:
        bill.unpriced.append(f"what what-if can't foresee: {len(unforeseen)}")
    if environment is not None:
        bill.add_containers(environment)
    return bill.estimate()


def container_costs(environment: Environment, prices: Path = PRICES) -> CostEstimate:
    """The monthly cost of what releases put beside the template's resources; needs no answer of Azure."""
    bill = _Bill(read_yaml(prices, PriceTable))
    bill.add_containers(environment)
    return bill.estimate()


class _Bill:
    def __init__(self, table: PriceTable) -> None:
        self.table = table
        self.lines: list[CostLine] = []
        self.on_demand: list[CostLine] = []
        self.unpriced: list[str] = []

    def add_resource(self, name: str, rule: Rule, body: dict[str, Any]) -> None:
        try:
            usages = list(rule(body, self.table.assumptions))
        except (KeyError, TypeError) as error:
            self.unpriced.append(f"{name}: what-if doesn't tell {error}")
            return
        for usage in usages:
            self._add(name, usage)

    def add_containers(self, environment: Environment) -> None:
        """The live version's container and that of the one before."""
        azure = environment.azure
        if azure.endpoint == "container-instances":
            hours, name = CONTAINERS * self.table.assumptions.hours, "scoring containers, live and previous"
            self._add(name, _Usage("container-cpu", "Standard", azure.cpu * hours))
            self._add(name, _Usage("container-memory", "Standard", azure.memory_gb * hours))

    def _add(self, name: str, usage: _Usage) -> None:
        resource = name + usage.part
        meter = self.table.meters.get(usage.meter)
        if meter is None or usage.sku not in meter.skus:
            self.unpriced.append(f"{resource}: no price of {usage.meter} {usage.sku}")
            return
        price = meter.skus[usage.sku]
        line = CostLine(
            resource=resource,
            sku=usage.sku,
            quantity=usage.quantity,
            unit=meter.unit,
            price=price,
            cost=round(usage.quantity * price, 2),
        )
        (self.on_demand if usage.on_demand else self.lines).append(line)

    def estimate(self) -> CostEstimate:
        return CostEstimate(
            lines=tuple(self.lines),
            on_demand=tuple(self.on_demand),
            unpriced=tuple(self.unpriced),
            total=round(sum(line.cost for line in self.lines), 2),
            **self.table.model_dump(include=set(PriceList.model_fields)),
        )


def _cluster(body: dict[str, Any], assumed: Assumptions) -> Iterator[_Usage]:
    yield _Usage("cluster", body["sku"]["tier"], assumed.hours)
    yield _Usage("load-balancer", "Standard", assumed.hours, ": load balancer")
    yield _Usage("public-address", "Standard", assumed.hours, ": outbound address")
    for pool in body["properties"]["agentPoolProfiles"]:
        part = f": pool {pool['name']}"
        machine = "spot-machine" if pool.get("scaleSetPriority") == "Spot" else "machine"
        if pool.get("enableAutoScaling") and pool["minCount"] == 0:
            yield _Usage(machine, pool["vmSize"], 1, f"{part} (0 to {pool['maxCount']})", on_demand=True)
            continue
        yield _Usage(machine, pool["vmSize"], pool["count"] * assumed.hours, part)
        yield _Usage("disk", "premium-128", pool["count"], f"{part}, disks")


def _database(body: dict[str, Any], assumed: Assumptions) -> Iterator[_Usage]:
    properties = body["properties"]
    servers = 2 if properties["highAvailability"]["mode"] == "ZoneRedundant" else 1
    yield _Usage("database", body["sku"]["name"], servers * assumed.hours)
    yield _Usage("database-storage", "Premium", servers * properties["storage"]["storageSizeGB"])


def _machine(body: dict[str, Any], assumed: Assumptions) -> Iterator[_Usage]:
    yield _Usage("machine", body["properties"]["hardwareProfile"]["vmSize"], assumed.hours)
    size = body["properties"]["storageProfile"]["osDisk"]["diskSizeGB"]
    yield _Usage("disk", f"standard-ssd-{size}", 1, ": disk")


def _web_plan(body: dict[str, Any], assumed: Assumptions) -> Iterator[_Usage]:
    yield _Usage("web-plan", body["sku"]["name"], body["sku"]["capacity"] * assumed.hours)


def _metered(meter: str, sku: str = "", assumption: str = "") -> Rule:
    """One meter, of the SKU at this path of the body (`Standard` without), by an assumption (one a month without)."""

    def usage(body: dict[str, Any], assumed: Assumptions) -> Iterator[_Usage]:
        kind = reduce(getitem, sku.split("."), body) if sku else "Standard"
        yield _Usage(meter, str(kind), getattr(assumed, assumption) if assumption else 1)

    return usage


RULES: Final[dict[str, Rule]] = {
    "Microsoft.Compute/virtualMachines": _machine,
    "Microsoft.ContainerRegistry/registries": _metered("registry", "sku.name"),
    "Microsoft.ContainerService/managedClusters": _cluster,
    "Microsoft.DBforPostgreSQL/flexibleServers": _database,
    "Microsoft.Insights/metricAlerts": _metered("metric-alert"),
    "Microsoft.Insights/scheduledQueryRules": _metered("log-alert", "properties.evaluationFrequency"),
    "Microsoft.KeyVault/vaults": _metered("vault", "properties.sku.name", "secret_operations_10k"),
    "Microsoft.Network/natGateways": _metered("nat-gateway", assumption="hours"),
    "Microsoft.Network/privateDnsZones": _metered("dns-zone"),
    "Microsoft.Network/privateEndpoints": _metered("private-endpoint", assumption="hours"),
    "Microsoft.Network/publicIPAddresses": _metered("public-address", assumption="hours"),
    "Microsoft.OperationalInsights/workspaces": _metered("logs", "properties.sku.name", "logs_gb"),
    "Microsoft.Storage/storageAccounts": _metered("storage", "sku.name", "stored_gb"),
    "Microsoft.Web/serverfarms": _web_plan,
}
"""What of a resource is metered."""
