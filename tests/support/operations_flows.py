"""Small real flows, made of the platform's own pieces, for the tests of the operations commands."""

import os
import signal
from pathlib import Path

from prefect import get_run_logger
from prefect.flow_runs import suspend_flow_run

from infra.backend import backend
from infra.config.environments import load_environment
from infra.settings import get_settings
from model.errors import DataRejected
from tasks.framework.error_table import ERRORS
from tasks.framework.pipeline import pipeline
from tasks.framework.stage import Result, stage
from tasks.release.approval import ReleaseDecision, decide


class Count(Result):
    """How often a step ran."""

    times: int


def _count(folder: str, name: str) -> int:
    marks = Path(folder) / name
    with marks.open("a") as file:
        file.write("x")
    return len(marks.read_text())


@stage("List images", "list images")
def list_images(folder: str) -> Count:
    get_run_logger().info("listing the images of %s", folder)
    return Count(times=_count(folder, "listed"))


@stage("Validate", "validate the manifest")
def validate(folder: str) -> Count:
    times = _count(folder, "validated")
    if not (Path(folder) / "repaired").exists():
        raise DataRejected(f"broken.jpg in {folder} is truncated.")
    return Count(times=times)


@pipeline("inspection", "inspection")
def inspection(folder: str) -> Count:
    return validate(folder)


@pipeline("intake", "intake of {name}")
def intake(folder: str, name: str) -> Count:
    """Fails in a subflow until the file `repaired` is there."""
    list_images(folder)
    return inspection(folder)


@pipeline("decided", "release {name}")
def decided(folder: str, name: str) -> Count:
    """Waits for a decision, as a release does; Prefect takes letters, digits and dashes as a key."""
    listed = list_images(folder)
    decision = suspend_flow_run(wait_for_input=ReleaseDecision, timeout=600, key=name)
    (Path(folder) / "decision").write_text(f"{decision.approved} {decision.by}: {decision.reason}")
    if not decision.approved:
        raise ERRORS["ReleaseRejected"](f"{decision.by} said no: {decision.reason}")
    return listed


@pipeline("asked", "release {name} v{version} to {environment}")
def asked(name: str, version: int, environment: str, folder: str, by: str = "") -> Count:
    """Waits for a decision by the rules of an environment file in `folder`, as a release does."""
    target = load_environment(environment, Path(folder))
    model = backend(get_settings()).registry().get(name, version)
    decide(model, target, by)
    if (Path(folder) / "broken").exists():
        raise DataRejected("Something else failed.")
    return Count(times=_count(folder, "released"))


@pipeline("killed", "killed")
def killed() -> Count:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
