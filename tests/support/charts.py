"""What the cluster gets: our manifests, and the official charts with our values, rendered by the real helm."""

import os
import string
import subprocess
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from infra.settings import PROJECT

FOLDER: Final = PROJECT / "infra" / "helm"
MANIFESTS: Final = FOLDER / "manifests" / "platform.yaml"
NAMESPACE: Final = "ahc"
POOLS: Final = ("aks-cpu", "aks-gpu")
VERSION: Final = kubernetes_validate.latest_version()
CLUSTER: Final = Path(os.environ.get("AHC_CLUSTER", PROJECT.parent / "shared" / "cluster"))
"""The folder of `helm.sh`."""
GIVEN: Final = {
    "REGISTRY": "crahc.azurecr.io",
    "IMAGE_TAG": "0123456789",
    "DATABASE_HOST": "psql-ahc.postgres.database.azure.com",
    "DATABASE_USER": "id-ahc-server",
    "KEY_VAULT": "kv-ahc",
    "TENANT_ID": "00000000-0000-0000-0000-000000000001",
    "SERVER_CLIENT_ID": "00000000-0000-0000-0000-000000000002",
    "FLOWS_CLIENT_ID": "00000000-0000-0000-0000-000000000003",
    "TRAINING_CLIENT_ID": "00000000-0000-0000-0000-000000000004",
}

Object = dict[str, Any]


def put_in(file: Path, **given: str) -> str:
    """The file as envsubst leaves it; a variable that nobody gives is an error here."""
    return string.Template(file.read_text(encoding="utf-8")).substitute({**GIVEN, **given})


@pytest.fixture(scope="session")
def manifests() -> list[Object]:
    return list(yaml.safe_load_all(put_in(MANIFESTS)))


@pytest.fixture(scope="session")
def server() -> list[Object]:
    """What the chart of the Prefect server makes of our values."""
    return _rendered("prefect-server", "prefect-server", put_in(FOLDER / "prefect-server.yaml"))


@pytest.fixture(scope="session", params=POOLS)
def worker(request: pytest.FixtureRequest) -> list[Object]:
    """What the chart of the worker makes of our values, for each pool."""
    pool = request.param
    values = put_in(FOLDER / "prefect-worker.yaml", POOL=pool)
    return _rendered("prefect-worker", f"prefect-worker-{pool}", values)


def one(objects: list[Object], kind: str, name: str = "") -> Object:
    (found,) = (item for item in objects if item["kind"] == kind and name in ("", item["metadata"]["name"]))
    return found


def pods(objects: list[Object]) -> list[Object]:
    """The pod templates of all workloads."""
    return [item["spec"]["template"] for item in objects if "template" in item.get("spec", {})]


def containers(objects: list[Object]) -> list[Object]:
    specs = [pod["spec"] for pod in pods(objects)]
    return [container for spec in specs for container in [*spec.get("initContainers", []), *spec["containers"]]]


def _rendered(chart: str, release: str, values: str) -> list[Object]:
    named = os.environ.get("AHC_PREFECT_CHARTS")
    if not named:
        pytest.skip("AHC_PREFECT_CHARTS names no folder with the official charts; docs/gpu.md says how to get them")
    if not (CLUSTER / "helm.sh").is_file():
        pytest.skip(f"no helm.sh in {CLUSTER}; to run these tests: AHC_CLUSTER=DIR pytest tests/helm")
    command = [str(CLUSTER / "helm.sh"), "template", release, str(Path(named) / chart), "--namespace", NAMESPACE]
    command += ["--kube-version", VERSION, "--values", "-"]
    done = subprocess.run(command, input=values, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]
