"""Our manifests, without helm."""

import json
import re

import kubernetes_validate
import pytest
import yaml

from infra.settings import PROJECT
from tests.support.charts import FOLDER, GIVEN, MANIFESTS, NAMESPACE, VERSION, one

OF_THE_DRIVER = "SecretProviderClass"
"""A kind that the secrets-store driver of AKS brings; Kubernetes' schemas lack it."""


def platform_template():
    return json.loads((PROJECT / "infra" / "arm" / "platform.json").read_text())


def federated_accounts():
    (federation,) = (item for item in platform_template()["resources"] if item["name"] == "federation")
    return {item["account"] for item in federation["properties"]["parameters"]["accounts"]["value"]}


def test_every_manifest_is_valid_in_a_current_kubernetes(manifests):
    known = [item for item in manifests if item["kind"] != OF_THE_DRIVER]
    assert len(known) == len(manifests) - 1
    for item in known:
        kubernetes_validate.validate(item, VERSION, strict=True)


def test_a_misspelled_field_would_be_found(manifests):
    service = one(manifests, "Service")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**service, "spec": {**service["spec"], "clusterIp": "None"}}, VERSION, strict=True
        )


def test_everything_is_in_the_namespace_of_the_templates(manifests):
    assert platform_template()["parameters"]["namespace"]["defaultValue"] == NAMESPACE
    assert one(manifests, "Namespace")["metadata"]["name"] == NAMESPACE
    spaces = {
        item["metadata"].get("namespace") for item in manifests if item["kind"] not in ("Namespace", "PriorityClass")
    }
    assert spaces == {NAMESPACE}


def test_the_namespace_comes_first_so_that_one_apply_is_enough(manifests):
    assert manifests[0]["kind"] == "Namespace"


def test_the_accounts_of_the_runs_are_those_that_the_templates_federate(manifests):
    names = {item["metadata"]["name"]: item for item in manifests if item["kind"] == "ServiceAccount"}
    assert {*names, "server"} == federated_accounts()
    for name in names:
        client = names[name]["metadata"]["annotations"]["azure.workload.identity/client-id"]
        assert client == GIVEN[f"{name.upper()}_CLIENT_ID"]


def test_the_secret_of_the_vault_becomes_the_key_that_the_charts_read(manifests):
    spec = one(manifests, OF_THE_DRIVER)["spec"]
    (secret,) = spec["secretObjects"]
    (entry,) = secret["data"]
    assert (secret["secretName"], entry["key"]) == ("prefect-auth", "auth-string")
    assert f"objectName: {entry['objectName']}\n" in spec["parameters"]["objects"]


def test_nothing_is_let_in_but_what_a_policy_names(manifests):
    policies = {item["metadata"]["name"]: item["spec"] for item in manifests if item["kind"] == "NetworkPolicy"}
    assert policies.pop("closed") == {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert set(policies) == {"prefect-server", "fit"}
    for policy in policies.values():
        assert policy["podSelector"]["matchLabels"]
        for rule in policy["ingress"]:
            # From pods of this namespace only.
            assert all(set(source) == {"podSelector"} for source in rule["from"])


def test_processes_of_one_training_find_each_other_before_they_are_ready(manifests):
    service = one(manifests, "Service", "fit")["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"]
    reach = next(item for item in manifests if item["kind"] == "NetworkPolicy" and item["metadata"]["name"] == "fit")
    assert reach["spec"]["podSelector"]["matchLabels"] == service["selector"]


def test_the_documented_commands_give_each_variable_and_take_it_from_an_output(manifests):
    documented = (PROJECT / "docs" / "gpu.md").read_text().partition("## The cluster's side")[2]
    files = [*FOLDER.glob("*.yaml"), MANIFESTS]
    wanted = {name for file in files for name in re.findall(r"\$\{(\w+)\}", file.read_text())}
    given = set(re.findall(r"export (\w+)", documented))
    assert wanted <= given
    outputs = set(platform_template()["outputs"])
    assert set(re.findall(r"\(output (\w+)\)", documented)) <= outputs
    for file in files:
        assert str(file.relative_to(PROJECT)) in documented


def test_the_device_plugin_gets_onto_every_node_that_a_training_gets_onto():
    (plugin,) = yaml.safe_load_all((MANIFESTS.parent / "nvidia-device-plugin.yaml").read_text())
    kubernetes_validate.validate(plugin, VERSION, strict=True)
    pod = plugin["spec"]["template"]["spec"]
    pool = yaml.safe_load((PROJECT / "deployments" / "work_pools" / "aks-gpu.yaml").read_text())["variables"]
    assert pod["nodeSelector"] == pool["properties"]["node_selector"]["default"]
    assert pod["tolerations"] == pool["properties"]["tolerations"]["default"]
