"""A cluster as AKS has it for the work pools, and a Prefect server beside it that its pods reach."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from infra.settings import PROJECT, Settings
from tests.conftest import free_ports, settings_environment

Found = TypeVar("Found")
NAMESPACE: Final = "ahc"
RUNS_AS: Final = 10001
HOST: Final = os.environ.get("AHC_CLUSTER_HOST", "10.244.76.1")
"""This machine's address as pods see it."""
IMAGE: Final = os.environ.get("AHC_TRAINING_IMAGE", "localhost/training:ci")
"""An image of infra/docker/training.Dockerfile that the cluster has."""
PATIENCE: Final = 600.0
STOP_SECONDS: Final = 30.0
OBJECTS: Final = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: training, namespace: {NAMESPACE}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: flows, namespace: {NAMESPACE}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: prefect-auth, namespace: {NAMESPACE}}}
stringData: {{auth-string: "reader:secret"}}
---
apiVersion: v1
kind: Service
metadata: {{name: fit, namespace: {NAMESPACE}}}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{ahclassifier.fit: "true"}}
  ports: [{{name: rendezvous, port: 29500}}]
"""
BLOCKER: Final = f"""
apiVersion: v1
kind: Pod
metadata: {{name: holds-the-gpu, namespace: {NAMESPACE}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: holder
      image: {IMAGE}
      imagePullPolicy: IfNotPresent
      args: [sleep, "3600"]
      resources: {{limits: {{nvidia.com/gpu: 1}}}}
"""


def missing() -> str | None:
    """Why trainings can't be rehearsed here; None where they can."""
    if not os.environ.get("KUBECONFIG"):
        return 'no KUBECONFIG; to run these tests: eval "$(../shared/cluster/up.sh --gpus 1)", pytest -m kubernetes'
    if not shutil.which("kubectl"):
        return "no kubectl on PATH"
    return None


def kubectl(*arguments: str, given: str | None = None) -> str:
    command = ["kubectl", "--namespace", NAMESPACE, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pods(flow_run: str) -> list[dict[str, Any]]:
    """The pods of a flow run that are there, ended ones included."""
    found: list[dict[str, Any]] = json.loads(
        kubectl("get", "pods", "--selector", f"prefect.io/flow-run-id={flow_run}", "--output", "json")
    )["items"]
    return found


def as_nodes(flow_run: str, like: str, nodes: int) -> list[str]:
    """Start the pods of an indexed Job for this flow run, as the Job of the run `like` has one; answers their names.

    By hand: this Kubernetes may be older than indexed Jobs. They need no GPU, for there may be but one, and find the
    first one by its address: a small DNS knows no pods by name.
    """
    first: dict[str, Any] = {"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    names = [f"nodes-{index}" for index in range(nodes)]
    [job] = json.loads(kubectl("get", "jobs", "--selector", f"prefect.io/flow-run-id={like}", "--output", "json"))[
        "items"
    ]
    for index, name in enumerate(names):
        template = json.loads(json.dumps(job["spec"]["template"]))
        spec = template["spec"]
        container = spec["containers"][0]
        own = {"PREFECT__FLOW_RUN_ID": flow_run, "JOB_NAME": "nodes", "JOB_COMPLETION_INDEX": str(index)}
        container["env"] = [
            *({"name": key, "value": value} for key, value in own.items()),
            *(item for item in container["env"] if item["name"] not in {*own, "MASTER_ADDR"}),
            {"name": "MASTER_ADDR", **first},
        ]
        for amounts in container["resources"].values():
            amounts.pop("nvidia.com/gpu", None)
        labels = {"ahclassifier.fit": "true"}
        pod = {"metadata": {"name": name, "labels": labels}, "spec": {**spec, "hostname": name}}
        kubectl("apply", "--filename", "-", given=json.dumps({"apiVersion": "v1", "kind": "Pod", **pod}))
        if index == 0:
            first = {"value": until(partial(_address, name), "the address of the first pod")}
    return names


def _address(pod: str) -> str | None:
    return kubectl("get", "pod", pod, "--output", "jsonpath={.status.podIP}") or None


def phase(pod: str) -> str:
    return kubectl("get", "pod", pod, "--output", "jsonpath={.status.phase}")


def running_pod(flow_run: str) -> str:
    """The name of the pod that runs this flow run."""

    def find() -> str | None:
        names = [
            pod["metadata"]["name"]
            for pod in pods(flow_run)
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]
        return names[0] if names else None

    return until(find, "a running pod")


def until(find: Callable[[], Found | None], what: str, patience: float = PATIENCE) -> Found:
    """What `find` answers once it answers something."""
    deadline = time.monotonic() + patience
    while (found := find()) is None:
        assert time.monotonic() < deadline, f"{what} didn't come within {patience:.0f} s"
        time.sleep(0.5)
    return found


@contextmanager
def gpu_taken() -> Iterator[None]:
    """Another pod holds the only GPU."""
    kubectl("apply", "--filename", "-", given=BLOCKER)
    try:
        kubectl("wait", "--for=condition=Ready", "pod/holds-the-gpu", "--timeout=180s")
        yield
    finally:
        kubectl("delete", "pod", "holds-the-gpu", "--now")


@contextmanager
def platform(folder: Path) -> Iterator[Settings]:
    """A Prefect server with all deployments as on AKS, and the workers of both pools, as processes of this machine.

    The shared store is `folder`, which pods see under the same path: what a pod leaves there another one finds.
    """
    from infra.local.platform.platform import Platform
    from infra.local.platform.prefect_settings import process_environment, use_prefect

    home = folder / "home"
    home.mkdir(mode=0o777, parents=True)
    prefect, mlflow, endpoints, *_ = free_ports(6)
    settings = Settings(
        home=folder / "server", host=HOST, prefect_port=prefect, mlflow_port=mlflow, endpoint_base_port=endpoints
    )
    kubectl("apply", "--filename", "-", given=OBJECTS)
    kubectl("label", "nodes", "--all", "--overwrite", "workload=training", "kubernetes.azure.com/mode=system")
    with ExitStack() as stack:
        running = stack.enter_context(Platform(settings))
        environment = {**process_environment(settings), **settings_environment(settings)}
        os.environ.update(environment)
        use_prefect(settings)
        running.wait_until_ready()
        _deploy(folder)
        for pool in ("aks-cpu", "aks-gpu"):
            # A worker's own settings go on to its pods.
            stack.enter_context(
                _worker(pool, folder / f"{pool}.log", {**environment, "PREFECT_LOCAL_STORAGE_PATH": f"{home}/results"})
            )
        subprocess.run(["chown", "--recursive", f"{RUNS_AS}:{RUNS_AS}", home], check=True)
        yield settings


def _deploy(folder: Path) -> None:
    """The shipped files, with this cluster's image, sizes and store."""
    server = {
        "base": str(PROJECT / "deployments" / "aks" / "server.yaml"),
        "work_pools": yaml.safe_load((PROJECT / "deployments" / "aks" / "server.yaml").read_text())["work_pools"],
    }
    home = str(folder / "home")
    for name, pool in server["work_pools"].items():
        template = PROJECT / "deployments" / "work_pools" / f"{name}.yaml"
        defaults = {
            key: value["default"]
            for key, value in yaml.safe_load(template.read_text())["variables"]["properties"].items()
        }
        pool["template"] = str(template)
        pool["job_variables"] = {
            "image": IMAGE,
            "image_pull_policy": "IfNotPresent",
            "cpu_request": "50m",
            "memory": "2Gi",
            "grace_seconds": 60,
            "volumes": [*defaults["volumes"], {"name": "store", "hostPath": {"path": home}}],
            "volume_mounts": [*defaults["volume_mounts"], {"name": "store", "mountPath": home}],
            "env": [*_kept(defaults["env"]), *_of_this_machine(home)],
        }
    file = folder / "server.yaml"
    file.write_text(yaml.safe_dump(server))
    subprocess.run([Path(sys.executable).with_name("ahc"), "deploy", "--server", file], cwd=PROJECT, check=True)


def _kept(env: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What doesn't belong to Azure."""
    return [item for item in env if not item["name"].startswith("AHC_") and "BLOCK" not in item["name"]]


def _of_this_machine(home: str) -> list[dict[str, str]]:
    values = {
        "AHC_BACKEND": "local",
        "AHC_TRAINER": "aks",
        "AHC_HOME": home,
        # Sums of floats depend on how many threads there are.
        "OMP_NUM_THREADS": "1",
    }
    return [{"name": name, "value": value} for name, value in values.items()]


@contextmanager
def _worker(pool: str, log: Path, environment: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "kubernetes"]
    with (
        log.open("w") as output,
        subprocess.Popen(
            command,
            env={**environment, "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES": NAMESPACE},
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=PROJECT,
        ) as worker,
    ):
        try:
            yield
        finally:
            worker.terminate()
            try:
                worker.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                # It waits for the runs that it started, which nobody wants any more.
                worker.kill()
