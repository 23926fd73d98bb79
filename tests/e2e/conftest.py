"""The platform as its users run it: the `ahc` command, a state folder of its own, free ports."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.conftest import free_ports
from tests.support.reaper import processes_with

AHC = str(Path(sys.executable).with_name("ahc"))
# On a free machine a lifecycle takes about 100 s; CI machines share their cores and measure coverage too.
PATIENCE = 900
QUICK = ("-p", "training.epochs=3", "-p", "training.head_epochs=5", "-p", "training.preprocessing.size=64")
COLOURS = ("amber", "blue", "coral", "emerald", "fuchsia", "grey", "ivory", "lime ✿")


class Machine:
    """One AHC_HOME with its ports; whatever was started in it is found by its environment."""

    def __init__(self, home: Path) -> None:
        self.home = home
        base, *_ = free_ports(12)
        self.environment = {
            **os.environ,
            "AHC_HOME": str(home),
            "AHC_PREFECT_PORT": str(base),
            "AHC_MLFLOW_PORT": str(base + 1),
            "AHC_ENDPOINT_BASE_PORT": str(base + 2),
            "PYTHONUNBUFFERED": "1",
        }
        self.environment.pop("PREFECT_API_URL", None)
        self.base = base

    def ahc(
        self, *arguments: str, code: int | None = 0, patience: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [AHC, *arguments], env=self.environment, capture_output=True, text=True, timeout=patience, check=False
        )
        if code is not None:
            assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def facts(self, *arguments: str, code: int | None = 0) -> dict:
        return json.loads(self.ahc(*arguments, "--json", code=code).stdout)

    def endpoints(self) -> dict[str, dict]:
        """What `ahc status` says of each environment's endpoint."""
        return {item["endpoint"]["environment"]: item["endpoint"] for item in self.facts("status")["environments"]}

    def start(self, *arguments: str) -> "Started":
        return Started(self, arguments)

    def processes(self) -> list[psutil.Process]:
        return [item for item in processes_with("AHC_HOME", str(self.home)) if item.pid != os.getpid()]

    def kill_everything(self) -> None:
        """Power loss: every process of this machine at once."""
        for process in self.processes():
            process.kill()
        psutil.wait_procs(self.processes(), timeout=10)

    def log(self, name: str) -> str:
        return (self.home / "logs" / f"{name}.log").read_text(errors="replace")


class Started:
    """A command that goes on."""

    def __init__(self, machine: Machine, arguments: tuple[str, ...]) -> None:
        self._output = machine.home.parent / f"{'-'.join(arguments[:1])}-{time.monotonic_ns()}.out"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [AHC, *arguments], env=machine.environment, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def wait_for(self, text: str, patience: float = PATIENCE) -> None:
        deadline = time.monotonic() + patience
        while text not in self.output:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < deadline, f"{text!r} didn't appear in {patience} s:\n{self.output}"
            time.sleep(0.2)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def end(self, patience: float = PATIENCE) -> int:
        return self.process.wait(patience)


@pytest.fixture
def machine(tmp_path):
    found = Machine(tmp_path / "home")
    yield found
    found.kill_everything()


@pytest.fixture(scope="module")
def shared_machine(tmp_path_factory):
    found = Machine(tmp_path_factory.mktemp("machine") / "home")
    yield found
    found.kill_everything()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Eight classes of RGBA and palette PNGs of odd sizes, 18 to 40 each: nothing that the platform has ever seen."""
    random, root = np.random.default_rng(7), tmp_path_factory.mktemp("pictures")
    for at, label in enumerate(COLOURS):
        (root / label).mkdir()
        base = random.integers(0, 256, 3)
        for number in range(18 + 3 * at):
            width, height = random.integers(33, 140, 2)
            noise = random.integers(-35, 36, (height, width, 3))
            pixels = np.clip(base + noise, 0, 255).astype(np.uint8)
            alpha = np.full((height, width, 1), 255, np.uint8)
            alpha[: height // 5] = 0
            picture = Image.fromarray(np.concatenate([pixels, alpha], axis=2), "RGBA")
            picture = picture if number % 2 else picture.convert("P")
            picture.save(root / label / f"{number}.png")
    return root
