"""A workspace on the bench with published training code, a compute and a data version; and the machines of its jobs."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from infra.azure.access.resources import platform_resources
from infra.azure.machine_learning.components import AmlPublication
from infra.azure.machine_learning.registry import ml_client
from infra.config.trainers import AzureMlTarget, TrainerFile
from infra.settings import PROJECT, Settings
from infra.training import TrainingJob
from model.config import TrainingConfig
from model.values import DataVersion
from tests.support.azure.bench import calls

IMAGE = "sha256:" + "a" * 64
KEY = "training-0123456789abcdef01234567"
COMPUTE = "aks"
JOB = TrainingJob(
    key=KEY,
    label="efficientnet_lite0 on colours@0123456789abcdef",
    data=DataVersion(
        name="colours",
        version="0123456789abcdef",
        manifest_uri="abfs://data/colours/0123456789abcdef/manifest.parquet",
        source_uri="abfs://data/colours",
        images=36,
        labels=("blue", "green", "red"),
        counts={},
    ),
    config=TrainingConfig(epochs=3),
)
PASS_SECONDS = 0.2


def client(settings: Settings) -> Any:
    platform = platform_resources(settings)
    return ml_client(platform)


def prepare(settings: Settings, version: str = "1") -> None:
    """Publish the training code, and make the compute."""
    from azure.ai.ml.entities import AmlCompute

    AmlPublication(settings).publish(version, IMAGE)
    compute = AmlCompute(name=COMPUTE, size="Standard_NC4as_T4_v3", min_instances=0, max_instances=2)
    client(settings).compute.begin_create_or_update(compute).result()


def described(**changes: Any) -> TrainerFile:
    """A trainer file as it is read."""
    target = AzureMlTarget(compute=COMPUTE, **changes)
    return TrainerFile(name="azure-ml", description="For tests.", kind="azure-ml", azure_ml=target)


def submitted(bench: Any) -> list[dict[str, Any]]:
    """What the jobs were submitted with, in order, without their repetitions by the SDK."""
    found = {
        call["url"].partition("?")[0]: json.loads(call["body"]) if isinstance(call["body"], str) else call["body"]
        for call in calls(bench, "PUT", "/jobs/")
        if call["status"] in (200, 201)
    }
    return [body["properties"] for body in found.values()]


class Machines:
    """Real machines for the bench's jobs: each job's command runs here, with its variables, and ends the job.

    Args:
        bench: Where the jobs are.
        settings: Of the platform.
        folder: For logs and homes.
        on_line: Told of each new piece of a job's log and the process: may end the machine.
    """

    def __init__(
        self,
        bench: Any,
        settings: Settings,
        folder: Path,
        on_log: Callable[[str, str], bool] = lambda _name, _log: False,
    ) -> None:
        self._bench = bench
        self._settings = settings
        self._folder = folder
        self._lost = on_log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.ended: list[str] = []

    def __enter__(self) -> Self:
        self._bench.lifecycle("aml-job", hold=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for process in self.running.values():
            process.kill()
            process.wait()

    def _watch(self) -> None:
        while not self._stop.wait(PASS_SECONDS):
            for key, job in self._bench.admin("state").items():
                name = job["name"]
                if "/jobs/" in key and name not in self.running:
                    self._start(name, job["properties"])
            for name, process in self.running.items():
                if name not in self.ended:
                    self._look_at(name, process)

    def _start(self, name: str, properties: dict[str, Any]) -> None:
        command = properties["command"].replace("${{inputs.job}}", properties["inputs"]["job"]["value"])
        program, *arguments = command.split()
        assert program == "python"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AHC_", "PREFECT_"))}
        home = self._folder / name
        home.mkdir(parents=True)
        # The bench lets in a service principal only.
        variables = {**properties["environmentVariables"], "AZURE_CLIENT_ID": os.environ["AZURE_CLIENT_ID"]}
        with (home / "log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, *arguments],
                env={
                    **inherited,
                    **variables,
                    "AHC_HOME": str(home),
                    "AZUREML_RUN_ID": name,
                    "PYTHONPATH": str(PROJECT),
                    "PYTHONUNBUFFERED": "1",
                },
                cwd=home,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._bench.lifecycle("aml-job", name, status="Running")

    def _look_at(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        code = process.poll()
        log = (self._folder / name / "log").read_text(errors="replace")
        if log:
            self._bench.admin("logs", {"match": f"^{name}$", "content": log})
        if code is None and self._lost(name, log):
            process.send_signal(signal.SIGKILL)
            process.wait()
            self._end(name, "Failed", {"code": "UserError", "message": "The node of the job was preempted."})
        elif code == 0:
            self._end(name, "Completed")
        elif code is not None:
            self._end(name, "Failed", {"code": "UserError", "message": f"User process exited with status code {code}."})

    def _end(self, name: str, status: str, error: dict[str, str] | None = None) -> None:
        self.ended.append(name)
        told = {"error": error} if error else {}
        self._bench.lifecycle("aml-job", f"^{name}$", status=status, **told)
