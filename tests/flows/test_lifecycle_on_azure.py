"""The whole lifecycle on Azure, as its users run it: provision, train, register, release; then again, without a change.

Everything is real but Azure itself: the `ahc` commands, the SDKs, blob storage (Azurite), a scoring process behind each
container group. The bench lacks the MLflow API of a workspace, so experiments go to a database.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.settings import PROJECT, Settings
from tests.conftest import free_ports
from tests.support.azure import bench as benches
from tests.support.azure.containers_world import ContainersWorld
from tests.support.azure.parameters import bench_parameters
from tests.support.training_case import COLOURS, coloured

pytestmark = [pytest.mark.azure, pytest.mark.long, pytest.mark.timeout(2400)]

AHC = str(Path(sys.executable).with_name("ahc"))
PATIENCE = 900
TARGETS = ("test", "acceptance")
QUICK = {"head_epochs": 5, "epochs": 1, "trainable_blocks": 1, "batch_size": 8, "preprocessing": {"size": 64}}


class Laptop:
    """Somebody's machine with an AHC_HOME of its own, on the bench's subscription."""

    def __init__(self, folder: Path, name: str) -> None:
        prefect, mlflow, *_, endpoints = free_ports(6)
        self.home = folder / name
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "AHC_HOME": str(self.home),
            "AHC_BACKEND": "azure",
            "AHC_AZURE_SUBSCRIPTION_ID": benches.SUBSCRIPTION,
            "AHC_AZURE_PARAMETERS": str(folder / "parameters"),
            "AHC_ENVIRONMENTS": str(folder / "environments"),
            "AHC_MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
            "AHC_PREFECT_PORT": str(prefect),
            "AHC_MLFLOW_PORT": str(mlflow),
            "AHC_ENDPOINT_BASE_PORT": str(endpoints),
        }
        self.environment.pop("PREFECT_API_URL", None)

    def ahc(self, *arguments: str, code: int = 0) -> str:
        """What the command printed and logged."""
        done = subprocess.run(
            [AHC, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        said = f"{done.stdout}\n{done.stderr}"
        assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{said}"
        return said

    def facts(self, *arguments: str) -> Any:
        done = subprocess.run(
            [AHC, *arguments, "--json"], env=self.environment, capture_output=True, text=True, timeout=120, check=True
        )
        return json.loads(done.stdout)


@pytest.fixture
def photos(tmp_path):
    for label, colour in COLOURS.items():
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(20):
            coloured(colour, 100 * len(label) + number).save(tmp_path / "photos" / label / f"{number:02}.jpg")
    return tmp_path / "photos"


@pytest.fixture
def described(tmp_path):
    """Parameter and environment files: the shipped ones, private, without what the bench can't deploy."""
    bench_parameters(tmp_path / "parameters", cluster=False)
    (tmp_path / "environments").mkdir()
    for name in TARGETS:
        content = yaml.safe_load((Settings().environments / f"{name}.yaml").read_text())
        content |= {"azure": {"private": True}, "sample_rate": 1.0}
        (tmp_path / "environments" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def written(bench: Any) -> list[str]:
    """What was written in Azure's control plane so far: resources, deployments, models, data assets."""
    calls = [call for call in bench.calls(host="management.azure.com") if call["method"] in {"PUT", "PATCH", "DELETE"}]
    return [f"{call['method']} {call['url']}" for call in calls]


def test_from_an_empty_subscription_to_a_smoke_tested_endpoint_and_again_without_a_change(bench, described, photos):
    laptop, another = Laptop(described, "laptop"), Laptop(described, "another")
    lifecycle = ["run", "lifecycle", "-p", f"data.source={photos}", "-p", "data.name=colours"]
    lifecycle += [item for key, value in QUICK.items() for item in ("-p", f"training.{key}={json.dumps(value)}")]
    with ContainersWorld(bench, described / "containers") as world:
        for name in ("platform", *TARGETS):
            laptop.ahc("run", "infrastructure", "-p", "mode=provision", "-p", f"environment={name}")
        first = laptop.ahc(*lifecycle)
        assert "Epoch 1 of 1" in first
        environments = {item["endpoint"]["environment"]: item for item in laptop.facts("status")["environments"]}
        for name in TARGETS:
            assert environments[name]["endpoint"]["state"] == "running"
            assert environments[name]["endpoint"]["live"] == {**environments["test"]["endpoint"]["live"], "version": 1}
            assert not any("registry" in line for line in environments[name]["differences"])
        [red] = laptop.facts("score", str(photos / "red" / "00.jpg"))["results"]
        assert red["answer"]["predictions"][0]["label"] == "red"
        assert all(item["ok"] for item in laptop.facts("doctor", "--env", "test")["findings"])

        before, containers = written(bench), world.running()
        again = another.ahc(*lifecycle)
        assert "Epoch" not in again
        for name in ("platform", *TARGETS):
            another.ahc("run", "infrastructure", "-p", "mode=provision", "-p", f"environment={name}")
        assert written(bench) == before
        assert world.running() == containers
