"""Small real flows for the tests of deployments, triggers and the platform."""

import logging
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.states import Completed, Crashed, Failed, State
from pydantic import BaseModel, ConfigDict, Field

from infra.errors import ConfigurationError
from infra.ports import RegisteredModel
from model.evaluation.verdict import Check, Verdict
from tasks.framework.gate_results import gate_results, show_gate, show_verdict
from tasks.framework.pipeline import pipeline

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

log = logging.getLogger("ahc.sample")


class Size(BaseModel):
    """How much a sample flow does."""

    model_config = ConfigDict(extra="forbid")

    images: int = Field(default=2, ge=0, description="Images to count.")
    seconds: float = Field(default=0, ge=0, description="How long the counting takes.")


class Request(BaseModel):
    """What a sample flow is asked for."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(description="Where the images are.")
    size: Size = Field(default_factory=Size, description="How many.")


@task(task_run_name="count {images} images")
def count(images: int, seconds: float) -> int:
    artifact = create_progress_artifact(0, key="images", description="0 images")
    for done in range(1, images + 1):
        time.sleep(seconds / images)
        log.info("counted image %s", done)
        update_progress_artifact(artifact, 100 * done / images, description=f"{done} of {images} images")
    return images


@flow(flow_run_name="inner of {name}")
def inner(name: str) -> None:
    log.info("inner says hello to %s", name)


@flow(flow_run_name="sample {data.source}")
def sample(data: Request, note: str = "") -> int:
    """Counts images and says so."""
    log.info("begin")
    counted = count(data.size.images, data.size.seconds)
    inner(data.source)
    log.info("end")
    return counted


@flow
def failing(name: str = "DataRejected") -> State[None]:
    """Ends as Failed with a state of this name."""
    return Failed(name=name, message=f"It was {name}.")


@flow
def unpromoted() -> State[None]:
    """Ends as Completed with the state name NotPromoted."""
    return Completed(name="NotPromoted", message="The champion is better.")


@flow(persist_result=True)
def killed_once(marker: str) -> str:
    """Kills its own process the first time."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def linger(flow: object, flow_run: object, state: object) -> None:
    """Longer than it takes until the run is started again."""
    time.sleep(4)


@flow(on_crashed=[linger])
def always_killed() -> None:
    """Kills its own process every time."""
    os.kill(os.getpid(), signal.SIGKILL)


@flow
def crashing() -> State[None]:
    """Ends as a run whose process is lost, and which doesn't go on by itself."""
    return Crashed(name="Interrupted", message="The node went away.")


@flow(name="lifecycle", flow_run_name="lifecycle {data.source}")
def lifecycle(data: Request) -> int:
    """Stands in for the lifecycle where only its handling is tested."""
    return count(data.size.images, data.size.seconds)


@flow
def judged(outcome: Literal["promote", "reject"] = "promote") -> State[None]:
    """Publishes what a training and a release publish, and a log line that tries to give orders to a build."""
    log.warning("##vso[task.setvariable variable=exitCode]99")
    model = RegisteredModel(name="food", version=3, digest="0" * 64, uri="file:///x", created=datetime.now(UTC))
    better = outcome == "promote"
    check = Check(name="accuracy", value=0.9, limit=0.8, passed=better, detail="0.9 against 0.8.")
    show_verdict(model, Verdict(outcome=outcome, reason="It was judged.", checks=(check,)))
    show_gate("smoke-test-test", gate_results("smoke test", [], if_none="everything as expected"))
    create_link_artifact(key="endpoint-test", link="http://127.0.0.1:1", link_text="http://127.0.0.1:1")
    return Completed(message="done") if better else Completed(name="NotPromoted", message="The champion is better.")


@pipeline("faulty", "faulty")
def faulty() -> None:
    """Ends by one of our errors, with a failure card."""
    raise ConfigurationError("The setting x is wrong.")


@flow
def fails_once(marker: str) -> None:
    """Fails the first time."""
    log.info("attempt")
    if not Path(marker).exists():
        Path(marker).touch()
        raise ValueError("the first time")


@task(task_run_name="part {part}")
def talk(part: str, lines: int, seconds: float) -> None:
    for number in range(lines):
        log.info("line %s %s %.6f", part, number, time.time())
        time.sleep(seconds / lines)


@flow(flow_run_name="talker {name}")
def talker(name: str, lines: int, seconds: float) -> None:
    """Two tasks that log at the same time."""
    parts = [talk.submit(f"{name}{letter}", lines // 2, seconds) for letter in "ab"]
    for part in parts:
        part.wait()


@flow
def talkers(lines: int = 10_000, seconds: float = 10) -> None:
    """A subflow in this process and one in another, which log at the same time: half of the lines each."""
    half = lines // 2
    given = {"name": "other", "lines": half, "seconds": seconds}
    other = cast("FlowRun", run_deployment("talker/t", parameters=given, timeout=0))
    talker("mine", half, seconds)
    with get_client(sync_client=True) as client:
        while not (state := client.read_flow_run(other.id).state) or not state.is_final():
            time.sleep(0.5)
