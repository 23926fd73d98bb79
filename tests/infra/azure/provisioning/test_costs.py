"""The cost estimate: what the template makes is what is counted, and nothing is silently free."""

from datetime import date

import pytest
import yaml

from infra.azure.access.resources import PLATFORM
from infra.azure.provisioning.costs import PRICES, RULES, container_costs, estimate
from infra.azure.provisioning.provision import plan
from infra.azure.provisioning.templates import compose
from infra.azure.provisioning.what_if import Plan, ResourceChange
from infra.config.environments import load_environment
from infra.errors import ConfigurationError
from tests.support.azure import parameters
from tests.support.azure.expanded_template import expand, foreseen
from tests.support.azure.parameters import EVERYTHING, PRIVATE, TARGETS, change, with_environment

pytestmark = pytest.mark.azure


@pytest.fixture
def settings(tmp_path):
    return parameters.shipped_settings(tmp_path)


def platform(settings, **values):
    change(settings.azure_parameters / "platform.json", **values)
    return costs(PLATFORM, settings)


def costs(name, settings):
    environment = None if name == PLATFORM else load_environment(name, settings.environments)
    return estimate(foreseen(name, compose(name, settings)), environment)


def priced(found, words):
    return next(line for line in found.lines if words in line.resource)


def cost(found, words):
    return round(sum(line.cost for line in found.lines if words in line.resource), 2)


@pytest.mark.parametrize("target", TARGETS)
def test_the_total_is_the_sum_of_the_lines_and_everything_shipped_has_a_price(settings, target):
    found = costs(target, settings)
    assert found.unpriced == ()
    assert found.total == pytest.approx(sum(line.cost for line in found.lines))
    for line in found.lines:
        assert line.cost == pytest.approx(line.quantity * line.price, abs=0.006)
    assert (found.currency, found.region) == ("USD", "westeurope")
    assert found.as_of <= date(2026, 12, 31)


def test_sizes_and_counts_are_those_of_the_template(settings):
    before = platform(settings)
    system = priced(before, "pool system")
    assert (system.sku, system.quantity, system.unit) == ("Standard_D2s_v5", 2 * 730, "hour")
    after = platform(settings, systemNodes=3, systemVmSize="Standard_D4s_v5")
    system = priced(after, "pool system")
    assert (system.sku, system.quantity) == ("Standard_D4s_v5", 3 * 730)
    assert after.total > before.total
    assert platform(settings, cluster=False).total < before.total - 150


def test_gpu_machines_that_scale_from_zero_cost_by_the_hour_of_use(settings):
    found = platform(settings, gpuNodesMax=4)
    (gpu,) = found.on_demand
    assert (gpu.resource, gpu.sku, gpu.unit) == ("aks-ahc-platform: pool gpu (0 to 4)", "Standard_NC4as_T4_v3", "hour")
    assert gpu.cost == gpu.price > 0
    assert not any("gpu" in line.resource for line in found.lines)
    (spot,) = platform(settings, gpuNodesMax=2, gpuSpot=True).on_demand
    assert spot.cost < gpu.cost / 2
    assert platform(settings, gpuNodesMax=0).on_demand == ()


def test_a_size_without_a_price_is_told_and_not_counted_as_free(settings):
    found = platform(settings, gpuNodesMax=2, gpuVmSize="Standard_NC96ads_H200_v9", databaseSku="Standard_X1")
    assert found.on_demand == ()
    assert "aks-ahc-platform: pool gpu (0 to 2): no price of machine Standard_NC96ads_H200_v9" in found.unpriced
    assert "psql-ahc-*: no price of database Standard_X1" in found.unpriced


def test_a_type_without_a_rule_is_told(settings):
    composed = compose(PLATFORM, settings)
    extra = {"type": "Microsoft.Cache/redis", "apiVersion": "2024-03-01", "name": "cache", "location": "westeurope"}
    composed.template["resources"][0]["properties"]["template"]["resources"].append(extra)
    assert estimate(foreseen(PLATFORM, composed)).unpriced == ("cache: no price of Microsoft.Cache/redis",)


def test_every_type_that_the_templates_can_make_is_metered_or_known_to_be_free(settings, tmp_path):
    free = set(yaml.safe_load(PRICES.read_text())["free"])
    change(settings.azure_parameters / "platform.json", **{**EVERYTHING, **PRIVATE})
    types = {"Microsoft.Resources/resourceGroups", *(item.type for item in expand(compose(PLATFORM, settings)))}
    web = with_environment(settings, tmp_path, endpoint="app-service")
    types |= {item.type for item in expand(compose("test", web))}
    change(settings.azure_parameters / "test.json", **PRIVATE)
    (tmp_path / "private").mkdir()
    closed = with_environment(settings, tmp_path / "private", private=True)
    types |= {item.type for item in expand(compose("test", closed))}
    assert types == free | set(RULES)
    assert not free & set(RULES)


def test_private_endpoints_are_counted_one_by_one(settings):
    found = platform(settings, privateEndpoints=True)
    endpoints = [line for line in found.lines if line.resource.startswith("pe-")]
    assert len(endpoints) == 8
    assert priced(found, "crahc").sku == "Premium"


def test_a_web_app_costs_its_plan_and_a_container_its_cores_and_memory(settings, tmp_path):
    container = costs("test", settings)
    assert cost(container, "scoring container") == pytest.approx(2 * 730 * (0.0486 + 2 * 0.0053), abs=0.02)
    change(settings.azure_parameters / "test.json", appServiceInstances=3)
    web = costs("test", with_environment(settings, tmp_path, endpoint="app-service"))
    web_plan = priced(web, "plan-ahc-test")
    assert (web_plan.sku, web_plan.quantity) == ("P0v3", 3 * 730)
    assert cost(web, "scoring container") == 0


def test_what_azure_foresees_for_an_empty_subscription_is_priced_as_a_whole(bench, tmp_path):
    on_bench = parameters.bench_settings(tmp_path)
    found = estimate(plan(PLATFORM, compose(PLATFORM, on_bench), on_bench))
    assert found.unpriced == ()
    assert priced(found, "pool system").quantity == 2 * 730


def test_what_azure_cannot_foresee_is_told_and_not_counted_as_free():
    cluster = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/aks"
    changes = (
        ResourceChange(resource_id=cluster, kind="Create", body={"sku": {"tier": "Free"}, "properties": {}}),
        ResourceChange(resource_id="[guid(reference('x').id)]", kind="Unsupported"),
    )
    found = estimate(Plan(name=PLATFORM, resource_group="g", location="westeurope", changes=changes))
    assert found.total == 0
    assert found.unpriced == ("aks: what-if doesn't tell 'agentPoolProfiles'", "what what-if can't foresee: 1")


def test_another_region_is_told(settings):
    assert "northeurope may differ" in platform(settings, location="northeurope").unpriced[0]


def test_a_broken_price_table_is_told_with_its_file(settings, tmp_path):
    table = yaml.safe_load(PRICES.read_text())
    del table["meters"]["registry"]["unit"]
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(table))
    with pytest.raises(ConfigurationError, match=r"prices\.yaml.*registry\.unit"):
        container_costs(load_environment("test", settings.environments), tmp_path / "prices.yaml")
