"""The deployments, work pools, limits and automations of a Prefect server, as files declare them.

The files are `prefect.yaml` and `deployments/server.yaml`.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from infra.config.yaml_files import read_mapping, read_yaml, validated
from model.values import Frozen


class ScheduleEntry(Frozen):
    """When a deployment runs by itself; one of cron, interval, rrule."""

    slug: str = Field(description="Its name within the deployment; an operator's pause is kept under this name.")
    cron: str | None = None
    interval: float | None = Field(default=None, gt=0, description="Seconds.")
    rrule: str | None = None
    timezone: str = "UTC"
    active: bool = True
    parameters: dict[str, Any] = Field(default_factory=dict)


class WorkPoolEntry(Frozen):
    """Where a deployment runs."""

    name: str
    work_queue_name: str = "default"
    job_variables: dict[str, Any] = Field(default_factory=dict)


class ConcurrencyEntry(Frozen):
    """How many runs of a deployment may run at once, and what happens to the next."""

    limit: int = Field(ge=1)
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"


class DeploymentEntry(Frozen):
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


class WorkQueueDefinition(Frozen):
    """A queue of a work pool: runs of the most urgent one are started first."""

    priority: int = Field(ge=1, description="1 is the most urgent; no two queues of a pool have the same.")
    description: str = ""
    concurrency_limit: int | None = Field(default=None, ge=1, description="How many of its runs may run at once.")


class WorkPoolDefinition(Frozen):
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


class ServerFile(Frozen):
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


def read_project(path: Path) -> tuple[DeploymentEntry, ...]:
    """The deployments of a prefect.yaml; raises as `read_yaml`."""
    return read_yaml(path, ProjectFile).deployments


def read_server(path: Path) -> ServerFile:
    """The rest of a server's declaration; templates of work pools lie beside the file.

    A file may have a `base`, another such file: each key that it lacks is that one's.

    Raises: as `read_yaml`.
    """
    server = validated(_with_base(path), ServerFile, path)
    pools = {
        name: pool.model_copy(update={"template": path.parent / pool.template}) if pool.template else pool
        for name, pool in server.work_pools.items()
    }
    return server.model_copy(update={"work_pools": pools})


def _with_base(path: Path) -> dict[str, Any]:
    content = read_mapping(path, may_be_empty=True)
    base = content.pop("base", None)
    return {**_with_base(path.parent / base), **content} if isinstance(base, str) else content
