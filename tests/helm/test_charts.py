"""The official charts with our values."""

import json

import kubernetes_validate
import yaml

from infra.settings import PROJECT
from tests.support.charts import GIVEN, NAMESPACE, POOLS, VERSION, containers, one, pods


def environment(container):
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


def selected(budget, objects):
    wanted = budget["spec"]["selector"]["matchLabels"].items()
    return [item for item in objects if "template" in item.get("spec", {}) and wanted <= labels(item).items()]


def labels(workload):
    return workload["spec"]["template"]["metadata"]["labels"]


def check(objects):
    """What holds for everything that a chart makes."""
    for item in objects:
        kubernetes_validate.validate(item, VERSION, strict=True)
    assert {item["metadata"]["namespace"] for item in objects} == {NAMESPACE}
    assert not {"Ingress", "Gateway", "HTTPRoute", "Secret"} & {item["kind"] for item in objects}
    assert "admin:" not in json.dumps(objects)
    assert pods(objects)
    for pod in pods(objects):
        spec = pod["spec"]
        assert spec["priorityClassName"] == "ahclassifier-platform"
        assert spec["nodeSelector"] == {"kubernetes.azure.com/mode": "system"}
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(objects):
        assert container["image"] == f"{GIVEN['REGISTRY']}/prefect:{GIVEN['IMAGE_TAG']}"
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        allowed = container["securityContext"]
        # What the namespace's pod security `restricted` demands, and a root that can't be written.
        assert (allowed["runAsNonRoot"], allowed["runAsUser"]) == (True, 10001)
        assert allowed["allowPrivilegeEscalation"] is False
        assert allowed["readOnlyRootFilesystem"] is True
        assert allowed["capabilities"] == {"drop": ["ALL"]}


def test_the_server_is_valid_closed_and_limited(server):
    check(server)
    assert one(server, "Service")["spec"]["type"] == "ClusterIP"


def test_a_worker_is_valid_closed_and_limited(worker):
    check(worker)


def test_the_server_asks_for_the_auth_string_and_has_it_from_the_vault(server, manifests):
    (container,) = containers(server)
    provided = one(manifests, "SecretProviderClass")
    (secret,) = provided["spec"]["secretObjects"]
    assert environment(container)["PREFECT_SERVER_API_AUTH_STRING"] == {
        "secretKeyRef": {"name": secret["secretName"], "key": "auth-string"}
    }
    (pod,) = pods(server)
    mounted = [volume["csi"] for volume in pod["spec"]["volumes"] if "csi" in volume]
    assert [item["volumeAttributes"]["secretProviderClass"] for item in mounted] == [provided["metadata"]["name"]]


def test_the_database_is_the_platforms_and_no_password_is_anywhere(server):
    (container,) = containers(server)
    told = environment(container)
    url = told["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    assert url == f"postgresql+asyncpg://{GIVEN['DATABASE_USER']}@{GIVEN['DATABASE_HOST']}:5432/prefect"
    assert told["PREFECT_PLUGINS_ENABLED"] == "true"
    assert told["PREFECT_INTEGRATIONS_AZURE_POSTGRES_MANAGED_IDENTITY_ENABLED"] == "true"


def test_the_server_signs_in_as_its_identity(server):
    account = one(server, "ServiceAccount")["metadata"]
    assert account["name"] == "server"
    assert account["annotations"]["azure.workload.identity/client-id"] == GIVEN["SERVER_CLIENT_ID"]
    (pod,) = pods(server)
    assert pod["spec"]["serviceAccountName"] == "server"
    assert pod["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert pod["spec"]["automountServiceAccountToken"] is False


def test_the_server_is_one_process_that_a_drain_may_move(server, manifests):
    deployment = one(server, "Deployment")
    assert deployment["spec"]["replicas"] == 1
    budget = one(manifests, "PodDisruptionBudget")
    assert selected(budget, server) == [deployment]
    assert budget["spec"]["maxUnavailable"] == 1


def test_the_policies_of_the_server_are_about_the_pods_of_the_chart(server, manifests):
    policy = one(manifests, "NetworkPolicy", "prefect-server")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels(one(server, "Deployment")).items()
    (rule,) = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == [
        port["port"] for port in one(server, "Service")["spec"]["ports"]
    ]


def test_a_worker_serves_its_pool_with_the_servers_address_and_auth_string(worker, server):
    (container,) = containers(worker)
    told = environment(container)
    service = one(server, "Service")
    name, port = service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    assert told["PREFECT_API_URL"] == f"http://{name}.{NAMESPACE}.svc.cluster.local:{port}/api"
    reference = {"secretKeyRef": {"name": "prefect-auth", "key": "auth-string"}}
    assert told["PREFECT_API_AUTH_STRING"] == reference
    # So that the pods of the runs refer to the secret too, and none holds its value.
    assert told["PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME"] == "prefect-auth"
    pool = container["args"][container["args"].index("--pool") + 1]
    assert pool in POOLS
    assert one(worker, "Deployment")["metadata"]["name"] == f"prefect-worker-{pool}"


def test_a_drain_leaves_one_worker_of_a_pool(worker):
    deployment = one(worker, "Deployment")
    budget = one(worker, "PodDisruptionBudget")
    assert selected(budget, worker) == [deployment]
    assert deployment["spec"]["replicas"] - budget["spec"]["maxUnavailable"] == 1


def test_the_workers_of_two_pools_share_no_object_and_no_budget(worker):
    name = one(worker, "Deployment")["metadata"]["name"]
    assert {item["metadata"]["name"] for item in worker} == {name}
    assert (
        one(worker, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]["prefect.io/worker-deployment-name"]
        == name
    )


def test_a_worker_may_make_jobs_and_read_pods_and_no_more(worker):
    rules = {resource: set(rule["verbs"]) for rule in one(worker, "Role")["rules"] for resource in rule["resources"]}
    reading = {"get", "list", "watch"}
    assert rules.pop("jobs") == reading | {"create", "update", "patch", "delete"}
    assert rules == dict.fromkeys(["events", "pods", "pods/log", "pods/status"], reading)


def test_prefect_in_the_image_is_the_version_of_the_deployments():
    built = (PROJECT / "infra" / "docker" / "prefect.Dockerfile").read_text()
    assert "--constraint constraints.txt" in built
    pinned = dict(
        line.split("==")
        for line in (PROJECT / "constraints.txt").read_text().splitlines()
        if line.startswith("prefect")
    )
    assert {"prefect", "prefect-azure", "prefect-kubernetes"} <= pinned.keys()
    assert yaml.safe_load((PROJECT / "prefect.yaml").read_text())["prefect-version"] == pinned["prefect"]
