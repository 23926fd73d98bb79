"""Agent pools of the organisation, and the queues by which a project uses them."""

from typing import Final

from infra.azure_devops.client import Json
from infra.azure_devops.plan import Item, Work
from infra.azure_devops.project import Project
from infra.errors import DevOpsRefused

HOSTED: Final = "Azure Pipelines"
"""Microsoft's own machines."""


def agent_queue(project: Project, pool: str | None, work: Work) -> Json | None:
    """The project's queue of this pool, or of Microsoft's; None where it would only be made.

    Raises:
        DevOpsRefused: The project lost its queue of Microsoft's machines.
        AccessDenied: Who runs this may not make pools, which belong to the organisation.
    """
    if pool is None:
        found = _queue(project, HOSTED)
        if found is None:
            raise DevOpsRefused(
                f"The project {project.name} has no queue `{HOSTED}`.",
                next_step="Add it in the project's settings (Agent pools), or name a `pool` in devops.yaml.",
            )
        return found
    made = work.settle(
        Item(
            kind="agent pool",
            name=pool,
            present=_pool(project, pool),
            create=lambda: project.devops.send(
                "POST", "_apis/distributedtask/pools", {"name": pool, "poolType": "automation", "autoProvision": False}
            ),
        )
    )
    return work.settle(
        Item(
            kind="agent queue",
            name=pool,
            present=_queue(project, pool) if made else None,
            create=lambda: project.devops.send(
                "POST",
                project.path("distributedtask/queues"),
                {"name": pool, "pool": {"id": (made or {})["id"]}},
                authorizePipelines="false",
            ),
        )
    )


def _pool(project: Project, name: str) -> Json | None:
    found = project.devops.values("_apis/distributedtask/pools", poolName=name)
    return next((item for item in found if item["name"] == name), None)


def _queue(project: Project, name: str) -> Json | None:
    found = project.devops.values(project.path("distributedtask/queues"), queueName=name)
    return next((item for item in found if item["name"] == name), None)
