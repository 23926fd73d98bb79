"""The ARM templates, before they are deployed: against Microsoft's types, and what they promise."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.azure.access.resources import PLATFORM
from infra.azure.provisioning.templates import DEPLOYMENT, TEMPLATES, compose
from infra.settings import Settings
from tests.support.azure import bench as benches
from tests.support.azure import parameters
from tests.support.azure.expanded_template import expand
from tests.support.azure.parameters import BENCH, EVERYTHING, GROUP, PRIVATE, TARGETS, change, with_environment

pytestmark = pytest.mark.azure

UNCOVERED = {
    "Microsoft.Compute",
    "Microsoft.Consumption",
    "Microsoft.DBforPostgreSQL",
    "Microsoft.EventGrid",
    "Microsoft.Insights/dataCollectionRules",
    "Microsoft.Insights/dataCollectionRuleAssociations",
    "Microsoft.KubernetesConfiguration",
}
"""What Microsoft's types, as far as the bench has them, lack."""


@pytest.fixture
def checker():
    if reason := benches.missing():
        pytest.skip(reason)


@pytest.fixture
def settings(tmp_path):
    return parameters.shipped_settings(tmp_path)


@pytest.fixture
def bench_settings(tmp_path):
    return parameters.bench_settings(tmp_path)


def check(composed, folder, *options):
    """What the bench's template check finds in a composed template: (worst first) level, code and path."""
    (folder / "template.json").write_text(json.dumps(composed.template))
    (folder / "given.json").write_text(json.dumps({"parameters": composed.parameters}))
    command = [sys.executable, "-m", "azure_bench", "check-template", "--json", *options]
    command += ["--parameters", str(folder / "given.json"), str(folder / "template.json")]
    path = os.pathsep.join([str(benches.BENCH), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["ok"] == (done.returncode == 0)
    return [item for item in report["violations"] if item["level"] != "info"]


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_deployed_fits_microsofts_types(checker, bench_settings, tmp_path, target):
    folder = bench_settings.azure_parameters
    change(folder / f"{target}.json", workbook=True)
    if target == PLATFORM:
        change(folder / f"{target}.json", workloadIdentity=True)
    assert check(compose(target, bench_settings), tmp_path) == []


def test_private_platforms_and_environments_fit_microsofts_types(checker, bench_settings, tmp_path):
    for target in (PLATFORM, "test"):
        change(bench_settings.azure_parameters / f"{target}.json", **PRIVATE)
    change(bench_settings.azure_parameters / "platform.json", gpuSpot=True, encryptionAtHost=True)
    settings = with_environment(bench_settings, tmp_path, private=True)
    assert check(compose(PLATFORM, settings), tmp_path) == []
    assert check(compose("test", settings), tmp_path) == []


def test_a_web_app_fits_microsofts_types(checker, bench_settings, tmp_path):
    settings = with_environment(bench_settings, tmp_path, endpoint="app-service")
    assert check(compose("test", settings), tmp_path) == []


def test_with_every_part_only_types_that_are_not_packed_stay_unchecked(checker, settings, tmp_path):
    change(settings.azure_parameters / "platform.json", **EVERYTHING)
    found = check(compose(PLATFORM, settings), tmp_path, "--allow-unknown")
    assert {(item["level"], item["code"]) for item in found} == {("warn", "UNKNOWN_TYPE")}
    named = {re.search(r"(Microsoft\.\w+/\w+)[/\w]* *(is not in|$)", item["message"])[1] for item in found}
    assert {kind if kind in UNCOVERED else kind.partition("/")[0] for kind in named} == UNCOVERED


def test_with_every_part_all_of_it_fits_the_types_that_microsoft_publishes(checker, settings):
    published = os.environ.get("AHC_BICEP_TYPES")
    if published is None:
        pytest.skip(
            "needs types that the bench lacks: git clone --depth 1 https://github.com/Azure/bicep-types-az, then "
            "AHC_BICEP_TYPES=bicep-types-az pytest tests/infra/azure/provisioning/test_templates.py"
        )
    change(settings.azure_parameters / "platform.json", **EVERYTHING)
    composed = compose(PLATFORM, settings)
    assert published_types_find(composed, published) == []
    for name, wrong in (("budget", "amount"), ("database", "version"), ("build-agent", "hardwareProfile")):
        (template,) = (
            item["properties"]["template"] for item in composed.template["resources"] if item["name"] == name
        )
        resource = next(item for item in template["resources"] if wrong in item["properties"])
        resource["properties"][wrong] = [True]
    assert {item["code"] for item in published_types_find(composed, published)} == {"INVALID_TYPE"}


def published_types_find(composed, folder):
    """What the bench's check finds, strictly, where it has all types of a checkout of bicep-types-az."""
    sys.path.insert(0, str(benches.BENCH))
    from azure_bench import armtemplate, template_check

    check = template_check.Checker()
    for path in Path(folder).glob("generated/*/*/*/types.json"):
        check.index.files.setdefault((path.parts[-3], path.parts[-2]), []).append(path)
    scope = armtemplate.Scope(benches.SUBSCRIPTION, "rg-ahc-platform")
    check.check(composed.template, composed.parameters, scope)
    return [item for item in check.problems if item["level"] == "error"]


@pytest.mark.parametrize(
    ("kind", "wrong", "code"),
    [
        ("Microsoft.Storage/storageAccounts", {"sku": {"nam": "Standard_LRS"}}, "REQUIRED"),
        ("Microsoft.Storage/storageAccounts", {"properties": {"isHnsEnabled": "yes"}}, "INVALID_TYPE"),
        ("Microsoft.KeyVault/vaults", {"properties": {"enableRbac": True}}, "UNKNOWN_PROPERTY"),
        ("Microsoft.Storage/storageAccounts", {"apiVersion": "2031-01-01"}, "UNKNOWN_API_VERSION"),
        ("Microsoft.Storage/storageAccounts", {"dependsOn": ["[resourceId('A.B/c', 'd')]"]}, "DEPENDENCY"),
        ("Microsoft.KeyVault/vaults", {"name": "[parameter('name')]"}, "InvalidTemplate"),
    ],
)
def test_a_mistake_in_a_module_is_caught(checker, bench_settings, tmp_path, kind, wrong, code):
    composed = compose("test", bench_settings)
    modules = [resource["properties"]["template"] for resource in composed.template["resources"]]
    resource = next(item for module in modules for item in module["resources"] if item["type"] == kind)
    for key, value in wrong.items():
        whole = key in {"name", "sku", "apiVersion", "dependsOn"}
        resource[key] = value if whole else {**resource[key], **value}
    assert code in {item["code"] for item in check(composed, tmp_path)}


def everything(target, settings, tmp_path):
    """All that a target can make; of an environment with a public endpoint, a private one and a web app."""
    if target == PLATFORM:
        change(settings.azure_parameters / "platform.json", **{**EVERYTHING, **PRIVATE})
        return expand(compose(target, settings))
    plans = expand(compose(target, settings))
    change(settings.azure_parameters / f"{target}.json", **PRIVATE)
    for number, azure in enumerate(({"private": True}, {"endpoint": "app-service"})):
        if number:
            change(settings.azure_parameters / f"{target}.json", privateEndpoints=False, allowedAddresses=[])
        (tmp_path / str(number)).mkdir()
        plans += expand(compose(target, with_environment(settings, tmp_path / str(number), target, **azure)))
    return plans


@pytest.mark.parametrize("target", TARGETS)
def test_every_resource_that_has_a_location_has_the_tags(settings, tmp_path, target):
    plan = everything(target, settings, tmp_path)
    tagged = [item for item in plan if "location" in item.body]
    assert len({item.type for item in tagged}) >= 8
    for item in tagged:
        tags = item.body["tags"]
        assert (tags["application"], tags["environment"], tags["managed-by"]) == ("ahclassifier", target, "arm"), (
            item.name
        )
        assert tags["cost-centre"]
        assert tags["owner"]


WHOLE_GROUP = {"Reader", "Azure Container Instances Contributor Role", "Traffic Manager Contributor"}
"""Roles of what releases make, so that it has no scope yet."""


@pytest.mark.parametrize("target", TARGETS)
def test_roles_are_least(settings, tmp_path, target):
    plan = [item for item in everything(target, settings, tmp_path) if item.type.endswith("/roleAssignments")]
    names = {value: name for name, value in json.loads(module("roles"))["variables"]["roles"].items()}
    mains = "".join((TEMPLATES / f"{main}.json").read_text() for main in ("platform", "environment"))
    assert all(f'"{name}"' in mains for name in names.values()), "a role that nobody gets"
    names["c6a89b2d-59bc-44d0-9896-0f6e12d7b80a"] = "Storage Queue Data Message Sender"
    names["8a0f0c08-91a1-4084-bc3d-661d67233fed"] = "Storage Queue Data Message Processor"
    given = [
        (names[re.search(r"[0-9a-f-]{36}", item.body["properties"]["roleDefinitionId"])[0]], item) for item in plan
    ]
    assert given
    assert not {"Owner", "Contributor", "User Access Administrator"} & set(names.values())
    for role, item in given:
        # Without a scope, a role holds for the whole resource group; none holds for more.
        assert "scope" in item.body or role in WHOLE_GROUP, item.module
        assert item.body.get("scope", "Microsoft.").startswith("Microsoft."), item.module
    assert "subscriptionDeploymentTemplate" not in json.dumps(compose(PLATFORM, Settings()).template)


RELEASES = {
    ("Reader", None),
    ("Storage Blob Data Contributor", "Microsoft.Storage/storageAccounts/stahc*"),
    ("Key Vault Secrets Officer", "Microsoft.KeyVault/vaults/kv-ahc-*"),
    ("Monitoring Metrics Publisher", "Microsoft.Insights/components/appi-ahc-test"),
}
CONTAINERS = {
    ("Azure Container Instances Contributor Role", None),
    ("Managed Identity Operator", "Microsoft.ManagedIdentity/userAssignedIdentities/id-ahc-test"),
    ("Log Analytics Contributor", "Microsoft.OperationalInsights/workspaces/log-ahc-test"),
}
NETWORK = {
    ("Network Contributor", "Microsoft.Network/virtualNetworks/vnet-ahc-test/subnets/scoring"),
    ("Private DNS Zone Contributor", "Microsoft.Network/privateDnsZones/test.ahc.internal"),
}


@pytest.mark.parametrize(
    ("azure", "more"),
    [
        ({}, {*CONTAINERS, ("Traffic Manager Contributor", None)}),
        ({"private": True}, CONTAINERS | NETWORK),
        ({"endpoint": "app-service"}, {("Website Contributor", "Microsoft.Web/sites/app-ahc-test-*")}),
    ],
    ids=["public", "private", "app-service"],
)
def test_people_and_flows_may_do_what_a_release_takes_and_no_more(settings, tmp_path, azure, more):
    change(settings.azure_parameters / "test.json", operatorsGroupId=GROUP)
    plan = expand(compose("test", with_environment(settings, tmp_path, **azure)))
    for who in ("flows-roles", "operators-roles"):
        assert given_roles(plan, who) == RELEASES | more


def test_people_may_build_images_in_the_registry_and_nowhere_else(settings):
    change(settings.azure_parameters / "platform.json", operatorsGroupId=GROUP)
    given = given_roles(expand(compose(PLATFORM, settings)), "operators-roles")
    building = {scope for role, scope in given if role == "Container Registry Tasks Contributor"}
    assert building == {"Microsoft.ContainerRegistry/registries/crahc*"}


def given_roles(plan, deployment):
    """(role, scope) of all that this nested deployment assigns; without a scope, for the resource group."""
    names = {value: name for name, value in json.loads(module("roles"))["variables"]["roles"].items()}
    assigned = [item for item in plan if item.module == deployment]
    assert all(item.type == "Microsoft.Authorization/roleAssignments" for item in assigned)
    roles = [names[re.search(r"[0-9a-f-]{36}", item.body["properties"]["roleDefinitionId"])[0]] for item in assigned]
    return {(role, item.body.get("scope")) for role, item in zip(roles, assigned, strict=True)}


def module(name):
    return (TEMPLATES / "modules" / f"{name}.json").read_text()


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.json")), ids=lambda path: path.stem)
def test_no_secret_is_in_a_file(path):
    text = path.read_text()
    assert not re.search(r"AccountKey=|SharedAccessKey=|-----BEGIN|listKeys|listCredentials", text)
    document = json.loads(text)
    for name in document["parameters"]:
        assert not re.search(r"password|secret|token|accountKey", name, re.IGNORECASE), name
    # What a template tells is kept in the deployment, where readers see it.
    assert not re.search(r"password|secret|key1", json.dumps(document.get("outputs", {})), re.IGNORECASE)


def test_every_module_is_used_and_every_parameter_too():
    used = set()
    for main in ("platform", "environment"):
        document = json.loads((TEMPLATES / f"{main}.json").read_text())
        used |= {item["properties"]["templateLink"]["relativePath"] for item in document["resources"]}
    files = {f"modules/{path.name}" for path in (TEMPLATES / "modules").iterdir()}
    assert used == files
    for path in [*TEMPLATES.glob("*.json"), *(TEMPLATES / name for name in files)]:
        document = json.loads(path.read_text())
        text = json.dumps({key: value for key, value in document.items() if key != "parameters"})
        for kind in ("parameters", "variables"):
            for name in document.get(kind, {}):
                assert f"{kind}('{name}')" in text, (path.name, name)


def test_a_composed_template_needs_no_other_file(settings):
    for resource in compose(PLATFORM, settings).template["resources"]:
        assert resource["type"] == DEPLOYMENT
        assert "templateLink" not in resource["properties"]
        assert resource["properties"]["expressionEvaluationOptions"] == {"scope": "inner"}


def test_the_longest_names_stay_within_azures_limits(checker, bench_settings, tmp_path):
    long = "a" * 30
    settings = with_environment(bench_settings, tmp_path, endpoint="app-service")
    content = yaml.safe_load((settings.environments / "test.yaml").read_text())
    (settings.environments / f"{long}.yaml").write_text(yaml.safe_dump({**content, "name": long}))
    shutil.copy(settings.azure_parameters / "test.json", settings.azure_parameters / f"{long}.json")
    settings = settings.model_copy(update={"azure_prefix": "p123456789"})
    for target in (PLATFORM, long):
        assert check(compose(target, settings), tmp_path) == []


def test_what_the_bench_leaves_out_are_parameters_of_the_platform():
    assert set(BENCH) <= set(json.loads((TEMPLATES / "platform.json").read_text())["parameters"])
