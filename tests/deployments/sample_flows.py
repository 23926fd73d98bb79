"""Small real flows for the tests of deployments, triggers and the platform."""

import logging
import os
import signal
import time
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.states import Completed, Failed, State
from pydantic import BaseModel, ConfigDict, Field

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


@flow
def always_killed() -> None:
    """Kills its own process every time."""
    os.kill(os.getpid(), signal.SIGKILL)


@flow(name="lifecycle", flow_run_name="lifecycle {data.source}")
def lifecycle(data: Request) -> int:
    """Stands in for the lifecycle where only its handling is tested."""
    return count(data.size.images, data.size.seconds)
