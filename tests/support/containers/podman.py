"""Real containers of the shipped images, by podman; see `missing` for what that takes."""

import contextlib
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from infra.settings import PROJECT
from tests.support.azure.scoring_containers import Serving

BEFORE = dict(os.environ)
"""Without the proxy of the Azure bench, which stays set once a test of Azure has run: behind it are no packages."""
TOOLS = Path(os.environ.get("AHC_CONTAINERS", PROJECT.parent / "shared" / "containers"))
"""The folder of `setup.sh` and `build.sh`, which let this machine build images without any registry."""
BASE = "localhost/python-base:bookworm"
LOCKED_DOWN = (
    *("--read-only", "--tmpfs", "/tmp", "--user", "10001", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--pids-limit", "128", "--memory", "512m", "--network", "host"),
    *("--health-interval", "disable"),
)


def missing() -> str | None:
    """Why images can't be built here; None where they can."""
    if not (TOOLS / "setup.sh").is_file():
        return f"no container tools at {TOOLS}; to run these tests: AHC_CONTAINERS=DIR pytest -m containers"
    if not shutil.which("podman"):
        return f"podman is not set up; to run these tests: {TOOLS}/setup.sh, then pytest -m containers"
    return None


@cache
def environment() -> dict[str, str]:
    """Where podman finds its images."""
    told = subprocess.run([TOOLS / "setup.sh"], check=True, capture_output=True, text=True).stdout
    exports = dict(item.split("=", 1) for item in told.removeprefix("export ").split())
    return {**BEFORE, **exports}


def podman(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["podman", *arguments], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


def dockerfile(name: str) -> Path:
    """That of one of the shipped images."""
    return PROJECT / "infra" / "docker" / f"{name}.Dockerfile"


def build(name: str, file: Path | None = None, **arguments: str) -> str:
    """The image of `infra/docker/NAME.Dockerfile` or of this file; quick where nothing of it has changed."""
    tag = f"localhost/ahc-{name}:test"
    words = [f"{key}={value}" for key, value in arguments.items()]
    command = [TOOLS / "build.sh", PROJECT, tag, file or dockerfile(name), *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return tag


@dataclass
class Container(Serving):
    """A running container."""

    name: str = ""

    def log(self) -> str:
        done = subprocess.run(["podman", "logs", self.name], env=environment(), capture_output=True, text=True)
        return done.stdout + done.stderr

    def running(self) -> bool:
        return self.fact("{{.State.Running}}") == "true"

    def fact(self, template: str) -> str:
        return podman("inspect", "--format", template, self.name)

    def signal(self, number: int) -> None:
        podman("kill", "--signal", str(int(number)), self.name)

    def exit_code(self, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        while self.running():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)
        return int(self.fact("{{.State.ExitCode}}"))


@contextlib.contextmanager
def container(image: str, port: int, variables: Mapping[str, str], *options: str, **how: Any) -> Iterator[Container]:
    """A container with the least rights; it is gone with the block."""
    name = f"ahc-{uuid.uuid4().hex[:12]}"
    given = [word for key, value in variables.items() for word in ("--env", f"{key}={value}")]
    podman("run", "--detach", "--name", name, *LOCKED_DOWN, *given, *options, image)
    try:
        yield Container(port, name=name, **how)
    finally:
        podman("rm", "--force", "--time", "0", name, check=False)
