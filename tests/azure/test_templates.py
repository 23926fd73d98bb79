"""The ARM templates: against Microsoft's types, deployed on the bench, and what they promise."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter

import pytest
import yaml

from infra.azure.expansion import planned
from infra.azure.resources import (
    PLATFORM,
    deployment_name,
    environment_resources,
    forget_resources,
    platform_resources,
    resource_group,
)
from infra.azure.templates import DEPLOYMENT, TEMPLATES, compose
from infra.environments import environment_names, load_environment
from infra.errors import ConfigurationError
from infra.settings import PROJECT, Settings
from tests.azure import bench as benches
from tests.azure.parameters import BENCH, SHIPPED, bench_parameters, change

pytestmark = pytest.mark.azure

ENVIRONMENTS = environment_names(PROJECT / "deployments" / "environments")
TARGETS = [PLATFORM, *ENVIRONMENTS]
GROUP = "11111111-2222-3333-4444-666666666666"
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
EVERYTHING = {
    "budgetAmount": 500,
    "budgetStart": "2026-11-01",
    "buildAgent": True,
    "natGateway": True,
    "buildAgentSshKey": "ssh-ed25519 AAAA agent",
    "operatorsGroupId": GROUP,
    "alertEmails": ["on-call@example.com"],
}
PRIVATE = {"privateEndpoints": True, "allowedAddresses": ["203.0.113.0/24"], "operatorsGroupId": GROUP}


@pytest.fixture
def checker():
    if reason := benches.missing():
        pytest.skip(reason)


@pytest.fixture
def settings(tmp_path):
    return benches.azure_settings(tmp_path / "home", azure_parameters=shutil.copytree(SHIPPED, tmp_path / "parameters"))


@pytest.fixture
def bench_settings(tmp_path):
    return benches.azure_settings(tmp_path / "home", azure_parameters=bench_parameters(tmp_path / "parameters"))


def with_environment(settings: Settings, folder, name="test", **azure) -> Settings:
    """Settings whose environment file of this name has these values under `azure`."""
    files = shutil.copytree(settings.environments, folder / "environments")
    content = yaml.safe_load((files / f"{name}.yaml").read_text())
    (files / f"{name}.yaml").write_text(yaml.safe_dump({**content, "azure": azure}))
    return settings.model_copy(update={"environments": files})


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


def client():
    from azure.mgmt.resource import ResourceManagementClient

    from infra.azure.credentials import credential

    return ResourceManagementClient(credential(), benches.SUBSCRIPTION, polling_interval=0)


def deploy(azure, name, settings):
    """Deploy, and answer the types of what was made, and what a second deployment would change."""
    composed = compose(name, settings)
    group, deployment = resource_group(name, settings), deployment_name(name, settings)
    azure.resource_groups.create_or_update(group, {"location": composed.location})
    properties = {"mode": "Incremental", "template": composed.template, "parameters": composed.parameters}
    azure.deployments.begin_create_or_update(group, deployment, {"properties": properties}, polling_interval=0).result()
    forget_resources()
    what_if = azure.deployments.begin_what_if(group, deployment, {"properties": properties}, polling_interval=0)
    changes = what_if.result().changes
    return (
        composed,
        Counter(change.resource_id for change in changes),
        [c for c in changes if c.change_type != "NoChange"],
    )


def kinds(identifiers):
    """Resource types by their ids, with how many there are."""
    parts = [identifier.rsplit("/providers/", 1)[1].split("/") for identifier in identifiers]
    return Counter("/".join([namespace, *rest[::2]]) for namespace, *rest in parts)


def test_platform_and_environments_deploy_and_a_second_time_nothing_changes(bench, bench_settings):
    with client() as azure:
        for name in TARGETS:
            composed, made, changes = deploy(azure, name, bench_settings)
            assert changes == [], name
            assert set(made.values()) == {1}
            # The plan that costs and policies are judged by is what is really deployed.
            assert kinds(made) == Counter(item.type for item in planned(composed))
    platform = platform_resources(bench_settings)
    assert (platform.cluster, platform.compute, platform.database_host) == ("aks-ahc-platform", "aks", "")
    assert platform.container_registry == f"crahc{platform.unique_suffix}"
    for name in ENVIRONMENTS:
        environment = environment_resources(load_environment(name, bench_settings.environments), bench_settings)
        assert environment.identity_id.endswith(f"/id-ahc-{name}")
        assert environment.log_analytics_customer_id
        assert (environment.endpoint_subnet_id, environment.dns_zone, environment.web_app) == ("", "", "")
    pulls = bench.calls(method="PUT", url=f"registries/{platform.container_registry}/providers")
    assert Counter(call["headers"]["x-deployment"] for call in pulls) >= Counter(
        f"pull-roles-{name}" for name in ENVIRONMENTS
    )


def test_a_private_environment_is_joined_to_a_private_platform(bench, tmp_path):
    folder = bench_parameters(tmp_path / "parameters", {"test": PRIVATE}, **PRIVATE)
    settings = benches.azure_settings(tmp_path / "home", azure_parameters=folder)
    settings = with_environment(settings, tmp_path, private=True)
    with client() as azure:
        assert deploy(azure, PLATFORM, settings)[2] == []
        assert deploy(azure, "test", settings)[2] == []
    environment = environment_resources(load_environment("test", settings.environments), settings)
    assert environment.endpoint_subnet_id.endswith("/virtualNetworks/vnet-ahc-test/subnets/scoring")
    assert environment.dns_zone == "test.ahc.internal"
    peerings = {call["url"].partition("?")[0] for call in bench.calls(method="PUT", url="virtualNetworkPeerings")}
    assert {tuple(url.split("/")[-3::2]) for url in peerings} == {
        ("vnet-ahc-test", "platform"),
        ("vnet-ahc-platform", "test"),
    }


def test_a_web_app_is_made_for_an_environment_that_asks_for_one(bench, bench_settings, tmp_path):
    settings = with_environment(bench_settings, tmp_path, endpoint="app-service")
    with client() as azure:
        deploy(azure, PLATFORM, settings)
        _, _, changes = deploy(azure, "test", settings)
    environment = environment_resources(load_environment("test", settings.environments), settings)
    assert environment.web_app == f"app-ahc-test-{environment.unique_suffix}"
    # A web app answers only some of its siteConfig: Azure's what-if, too, takes the others for changes.
    assert {delta.path.rpartition(".")[0] for item in changes for delta in item.delta} == {"properties.siteConfig"}


def everything(target, settings, tmp_path):
    """All that a target can make; of an environment with a public endpoint, a private one and a web app."""
    if target == PLATFORM:
        change(settings.azure_parameters / "platform.json", **{**EVERYTHING, **PRIVATE})
        return planned(compose(target, settings))
    plans = planned(compose(target, settings))
    change(settings.azure_parameters / f"{target}.json", **PRIVATE)
    for number, azure in enumerate(({"private": True}, {"endpoint": "app-service"})):
        if number:
            change(settings.azure_parameters / f"{target}.json", privateEndpoints=False, allowedAddresses=[])
        (tmp_path / str(number)).mkdir()
        plans += planned(compose(target, with_environment(settings, tmp_path / str(number), target, **azure)))
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


@pytest.mark.parametrize("target", TARGETS)
def test_roles_are_least(settings, tmp_path, target):
    plan = [item for item in everything(target, settings, tmp_path) if item.type.endswith("/roleAssignments")]
    names = {value: name for name, value in json.loads(module("roles"))["variables"]["roles"].items()}
    given = [
        (names[re.search(r"[0-9a-f-]{36}", item.body["properties"]["roleDefinitionId"])[0]], item) for item in plan
    ]
    assert given
    assert not {"Owner", "Contributor", "User Access Administrator"} & set(names.values())
    for role, item in given:
        # Without a scope, a role holds for the whole resource group; none holds for more.
        assert "scope" in item.body or role in {"Reader", "Azure Container Instances Contributor Role"}, item.module
        assert item.body.get("scope", "Microsoft.").startswith("Microsoft."), item.module
    assert "subscriptionDeploymentTemplate" not in json.dumps(compose(PLATFORM, Settings()).template)


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


def test_values_said_elsewhere_are_taken_from_there(settings, tmp_path):
    settings = settings.model_copy(update={"azure_prefix": "shop"})
    settings = with_environment(settings, tmp_path, "production", private=True, subscription_id=GROUP)
    given = compose("production", settings)
    values = {name: item["value"] for name, item in given.parameters.items()}
    assert (values["prefix"], values["environment"], values["private"]) == ("shop", "production", True)
    assert values["latencyP95Ms"] == 250
    assert values["platformResourceGroup"] == "rg-shop-platform"
    assert values["platformSubscriptionId"] == benches.SUBSCRIPTION
    assert given.location == "westeurope"
    assert given.container == (1, 2)


def test_an_environment_of_ones_own_takes_a_parameter_file_of_ones_own(settings, tmp_path):
    settings = with_environment(settings, tmp_path)
    (settings.environments / "staging.yaml").write_text("name: staging\ndescription: x\nport_offset: 9\n")
    with pytest.raises(ConfigurationError, match=r"parameters/staging\.json is missing") as caught:
        compose("staging", settings)
    assert "Copy infra/arm/parameters/test.json" in caught.value.next_step
    shutil.copy(settings.azure_parameters / "test.json", settings.azure_parameters / "staging.json")
    assert compose("staging", settings).parameters["environment"] == {"value": "staging"}


@pytest.mark.parametrize(
    ("target", "values", "told"),
    [
        ("test", {"storageSkew": "x"}, "unknown parameter `storageSkew`: did you mean `storageSku`?"),
        ("test", {"storageSku": "Tape"}, '`storageSku`: "Tape" is none of'),
        ("test", {"softDeleteDays": "14"}, '`softDeleteDays`: expected a whole number, found "14"'),
        ("test", {"softDeleteDays": True}, "`softDeleteDays`: expected a whole number, found true"),
        ("test", {"softDeleteDays": 0}, "`softDeleteDays`: 0 is below 1"),
        ("test", {"logRetentionDays": 731}, "`logRetentionDays`: 731 is above 730"),
        ("test", {"prefix": "x"}, "`prefix` is not set here but by AHC_AZURE_PREFIX"),
        ("test", {"private": True}, "`private` is not set here but by the environment file's `azure.private`"),
        ("test", {"privateEndpoints": True}, "`privateEndpoints` needs `azure.private: true`"),
        ("test", {"allowedAddresses": ["203.0.113.7"]}, "`allowedAddresses` needs `azure.private: true`"),
        ("platform", {"budgetAmount": 100}, "`budgetStart` is missing"),
        ("platform", {"buildAgent": True, "natGateway": True}, "`buildAgentSshKey` is missing"),
        ("platform", {"buildAgent": True, "buildAgentSshKey": "ssh-ed25519 A"}, "`buildAgent` needs `natGateway`"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_file(settings, target, values, told):
    change(settings.azure_parameters / f"{target}.json", **values)
    with pytest.raises(ConfigurationError) as caught:
        compose(target, settings)
    assert told in str(caught.value)
    assert str(settings.azure_parameters / f"{target}.json") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not valid JSON"),
        ("[]", "the key `parameters` with an object is missing"),
        ('{"parameters": {}}', "`location` is missing (The Azure region, such as westeurope)"),
        ('{"parameters": {"location": "westeurope"}}', '`location`: expected {"value": ...}'),
        (
            '{"parameters": {"location": {"value": 1}, "storageSku": {"value": 2}}}',
            "`location`: expected a text, found 1; `storageSku`: expected a text, found 2",
        ),
    ],
)
def test_a_broken_parameter_file_is_told_as_such(settings, content, told):
    (settings.azure_parameters / "test.json").write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        compose("test", settings)
    assert told in str(caught.value)


def test_what_the_bench_leaves_out_are_parameters_of_the_platform():
    assert set(BENCH) <= set(json.loads((TEMPLATES / "platform.json").read_text())["parameters"])
