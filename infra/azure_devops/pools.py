"""Agent pools of the organisation, and the queues by which a project uses them."""

from typing import Final

from infra.azure_devops.client import Json
from infra.azure_devops.plan import Plan
from infra.azure_devops.project import Project, named
from infra.errors import DevOpsRefused

HOSTED: Final = "Azure Pipelines"
"""Microsoft's own machines."""
POOLS: Final = "_apis/distributedtask/pools"
QUEUES: Final = "distributedtask/queues"


def agent_queue(project: Project, pool: str | None, plan: Plan) -> Json | None:
    """The project's queue of this pool, or of Microsoft's; None where it would only be made.

    Raises:
        DevOpsRefused: The project lost its queue of Microsoft's machines.
        AccessDenied: Who runs this may not make pools, which belong to the organisation.
    """
    if pool is None:
        queue = project.find(QUEUES, "queueName", HOSTED)
        if queue is None:
            raise DevOpsRefused(
                f"The project {project.name} has no queue `{HOSTED}`.",
                next_step="Add it in the project's settings (Agent pools), or name a `pool` in devops.yaml.",
            )
        return queue
    devops = project.devops
    made = plan.apply(
        "agent pool",
        pool,
        named(devops.values(POOLS, poolName=pool), pool),
        create=lambda: devops.send("POST", POOLS, {"name": pool, "poolType": "automation", "autoProvision": False}),
    )
    return plan.apply(
        "agent queue",
        pool,
        project.find(QUEUES, "queueName", pool) if made else None,
        create=lambda: devops.send(
            "POST",
            project.path(QUEUES),
            {"name": pool, "pool": {"id": (made or {})["id"]}},
            authorizePipelines="false",
        ),
    )
