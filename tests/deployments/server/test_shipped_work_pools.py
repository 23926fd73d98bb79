"""The Jobs that the work pools of AKS start are what current Kubernetes versions take, and what was promised."""

import asyncio
from uuid import uuid4

import kubernetes_validate
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from deployments.server.deploy import PROJECT_FILE, SERVER_FILE
from deployments.server.deployment_files import placed, read_project, read_server
from deployments.server.job_templates import job_template
from infra.settings import PROJECT

pytestmark = pytest.mark.usefixtures("prefect_server")
AKS = PROJECT / "deployments" / "aks" / "server.yaml"


def manifest(pool, **variables):
    """The Job as the worker would create it."""

    async def make():
        template = job_template(read_server(AKS).work_pools[pool])
        configuration = await KubernetesWorkerJobConfiguration.from_template_and_values(
            base_job_template=template, values=variables
        )
        configuration.prepare_for_flow_run(FlowRun(id=uuid4(), name="fit", flow_id=uuid4()))
        return configuration.job_manifest

    return asyncio.run(make())


@pytest.fixture(params=["aks-cpu", "aks-gpu"])
def job(request):
    return manifest(request.param)


@pytest.mark.parametrize("version", ["1.31.0", "1.33.0"])
def test_a_job_is_valid(job, version):
    kubernetes_validate.validate(job, version, strict=True)


def test_a_pod_has_the_least_rights_and_no_secret_in_its_text(job):
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {item["mountPath"] for item in container["volumeMounts"]} == {"/tmp", "/dev/shm"}
    auth = [item for item in container["env"] if item["name"] == "PREFECT_API_AUTH_STRING"]
    assert auth == [
        {
            "name": "PREFECT_API_AUTH_STRING",
            "valueFrom": {"secretKeyRef": {"name": "prefect-auth", "key": "auth-string"}},
        }
    ]
    assert job["spec"]["template"]["metadata"]["labels"]["azure.workload.identity/use"] == "true"


def test_nothing_but_the_automation_starts_a_run_again(job):
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["podReplacementPolicy"] == "Failed"
    assert job["spec"]["activeDeadlineSeconds"] > 0


def test_a_gpu_is_asked_for_by_the_gpu_pool_alone():
    gpu, cpu = (manifest(pool)["spec"]["template"]["spec"] for pool in ("aks-gpu", "aks-cpu"))
    assert gpu["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in cpu["containers"][0]["resources"]["limits"]
    tolerated = {item["key"] for item in gpu["tolerations"]}
    assert tolerated >= {"sku", "nvidia.com/gpu", "kubernetes.azure.com/scalesetpriority"}
    assert cpu["tolerations"] == []


def test_a_deployment_can_ask_for_other_gpus():
    pod = manifest("aks-gpu", gpu_count=4, node_selector={"gpu": "a100"})["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] == 4
    assert pod["nodeSelector"] == {"gpu": "a100"}


@pytest.mark.parametrize(("file", "pools"), [(SERVER_FILE, {"local"}), (AKS, {"aks-cpu", "aks-gpu"})])
def test_every_deployment_runs_in_a_pool_that_its_server_has(file, pools):
    server = read_server(file)
    assert set(server.work_pools) == pools
    assert {entry.work_pool.name for entry in placed(read_project(PROJECT_FILE), server)} == pools
    assert server.automations
