"""What the Prefect server is to have, read from `prefect.yaml` and `deployments/server.yaml`."""

from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from infra.config.yaml_files import nearest
from infra.errors import ConfigurationError
from model.values import Frozen


class Strict(Frozen):
    """A section of a file that people write: unknown keys are errors."""


class ScheduleEntry(Strict):
    """When a deployment runs by itself; one of cron, interval, rrule."""

    slug: str = Field(description="Its name within the deployment; an operator's pause is kept under this name.")
    cron: str | None = None
    interval: float | None = Field(default=None, gt=0, description="Seconds.")
    rrule: str | None = None
    timezone: str = "UTC"
    active: bool = True
    parameters: dict[str, Any] = Field(default_factory=dict)


class WorkPoolEntry(Strict):
    """Where a deployment runs."""

    name: str
    work_queue_name: str = "default"
    job_variables: dict[str, Any] = Field(default_factory=dict)


class ConcurrencyEntry(Strict):
    """How many runs of a deployment may run at once, and what happens to the next."""

    limit: int = Field(ge=1)
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"


class DeploymentEntry(Strict):
    """One deployment of prefect.yaml."""

    name: str
    entrypoint: str = Field(description="Module form, such as flows.lifecycle.lifecycle.")
    work_pool: WorkPoolEntry
    description: str | None = None
    tags: tuple[str, ...] = ()
    parameters: dict[str, Any] = Field(default_factory=dict)
    schedules: tuple[ScheduleEntry, ...] = ()
    concurrency_limit: int | ConcurrencyEntry | None = None
    enforce_parameter_schema: bool = True
    paused: bool = False


class WorkQueueDefinition(Strict):
    """A queue of a work pool: runs of the most urgent one are started first."""

    priority: int = Field(ge=1, description="1 is the most urgent; no two queues of a pool have the same.")
    description: str = ""
    concurrency_limit: int | None = Field(default=None, ge=1, description="How many of its runs may run at once.")


class WorkPoolDefinition(Strict):
    """A work pool; `job_variables` replace defaults of its base job template."""

    type: str
    description: str = ""
    template: Path | None = Field(
        default=None,
        description="File of a base job template, seen from this file's folder; without it, the type's own is taken.",
    )
    concurrency_limit: int | None = Field(default=None, ge=1)
    job_variables: dict[str, Any] = Field(default_factory=dict)
    queues: dict[str, WorkQueueDefinition] = Field(default_factory=dict)

    @field_validator("queues")
    @classmethod
    def _priorities_differ(cls, queues: dict[str, WorkQueueDefinition]) -> dict[str, WorkQueueDefinition]:
        if len({queue.priority for queue in queues.values()}) < len(queues):
            raise ValueError("two queues have the same priority")
        return queues


class ServerFile(Strict):
    """`deployments/server.yaml`, or another server's file."""

    in_place_of: dict[str, str] = Field(
        default_factory=dict,
        description="Which of its pools runs the deployments of a pool that this server lacks.",
    )
    work_pools: dict[str, WorkPoolDefinition] = Field(default_factory=dict)
    concurrency_limits: dict[str, int] = Field(
        default_factory=dict, description="Global limits by name, for `prefect.concurrency`."
    )
    automations: tuple[dict[str, Any], ...] = Field(default=(), description="As in Prefect's automation schema.")


class ProjectFile(BaseModel):
    """The part of prefect.yaml that is ours; Prefect's own keys around it are left to Prefect."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    deployments: tuple[DeploymentEntry, ...]


def placed(entries: tuple[DeploymentEntry, ...], server: ServerFile) -> tuple[DeploymentEntry, ...]:
    """The deployments in the pools that this server has."""

    def move(entry: DeploymentEntry) -> DeploymentEntry:
        name = server.in_place_of.get(entry.work_pool.name, entry.work_pool.name)
        return entry.model_copy(update={"work_pool": entry.work_pool.model_copy(update={"name": name})})

    return tuple(move(entry) for entry in entries)


File = TypeVar("File", bound=BaseModel)


def read_project(path: Path) -> tuple[DeploymentEntry, ...]:
    """The deployments of a prefect.yaml.

    Raises:
        ConfigurationError: Names the file, each wrong key and the nearest valid word.
    """
    return _read(path, ProjectFile).deployments


def read_server(path: Path) -> ServerFile:
    """The rest of what the server is to have; templates of work pools are found beside the file.

    A file may have a `base`, another such file: each key that it lacks is that one's.

    Raises:
        ConfigurationError: As `read_project`.
    """
    server = _read(path, ServerFile)
    pools = {
        name: pool.model_copy(update={"template": path.parent / pool.template}) if pool.template else pool
        for name, pool in server.work_pools.items()
    }
    return server.model_copy(update={"work_pools": pools})


def _content(path: Path) -> Any:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"Can't read {path}: {error.strerror or error}.") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not valid YAML: {error}") from error
    if isinstance(content, dict) and isinstance(base := content.pop("base", None), str):
        return {**_content(path.parent / base), **content}
    return content


def _read(path: Path, model: type[File]) -> File:
    content = _content(path)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(f"{path}: " + "; ".join(_explain(item, model) for item in error.errors())) from error


def _explain(item: Any, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"`{where}`: {item['msg']}"
    return f"unknown key `{where}`: {nearest(str(item['loc'][-1]), _valid_keys(model, item['loc'][:-1]))}"


def _valid_keys(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Fields of the model at this place of the file."""
    owners: dict[str, type[BaseModel]] = {
        "deployments": DeploymentEntry,
        "schedules": ScheduleEntry,
        "work_pool": WorkPoolEntry,
        "work_pools": WorkPoolDefinition,
        "queues": WorkQueueDefinition,
        "concurrency_limit": ConcurrencyEntry,
    }
    names = [part for part in location if part in owners]
    return list((owners[names[-1]] if names else model).model_fields)
