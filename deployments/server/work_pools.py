"""The work pools of `deployments/server.yaml` and their queues, planned against those of the server."""

from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from deployments.server.deployment_files import DeploymentEntry, WorkPoolDefinition, WorkQueueDefinition
from deployments.server.job_templates import job_template
from deployments.server.planned_change import OURS, Change, differences
from infra.config.yaml_files import nearest
from infra.errors import ConfigurationError
from infra.runs.pages import read_all_async

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import WorkQueue

DEFAULT: Final = "default"
"""Prefect makes this queue with every work pool; it can't be removed."""


async def plan_pools(
    client: "PrefectClient", definitions: dict[str, WorkPoolDefinition], deployed_before: frozenset[str]
) -> list[Change]:
    """What has to change in work pools and queues.

    Args:
        client: An open client.
        definitions: Pools by name.
        deployed_before: Pools (`local`) and queues (`local/urgent`) that an earlier deploy named. Those that nobody
            defines any more are removed; a pool only where nobody else's deployment uses it.

    Raises:
        ConfigurationError: A base job template is not valid.
    """
    existing = {pool.name: pool for pool in await read_all_async(client.read_work_pools)}
    changes: list[Change] = []
    for name, definition in definitions.items():
        changes += _plan_pool(client, name, definition, existing.get(name))
        queues = await client.read_work_queues(work_pool_name=name) if name in existing else []
        changes += _plan_queues(client, name, definition.queues, {item.name: item for item in queues}, deployed_before)
    changes += [
        Change("work pool", name, "remove", perform=partial(client.delete_work_pool, name))
        for name in existing
        if name in deployed_before and name not in definitions and not await _used_by_others(client, name)
    ]
    return changes


def pool_names(definitions: dict[str, WorkPoolDefinition]) -> set[str]:
    """All pools and queues, as `plan_pools` knows them."""
    return {
        *definitions,
        *(f"{pool}/{queue}" for pool, definition in definitions.items() for queue in definition.queues),
    }


def check_queues(entries: tuple[DeploymentEntry, ...], pools: dict[str, WorkPoolDefinition]) -> None:
    """Refuse a queue that the work pool doesn't have; Prefect would make it, the least urgent of all.

    Raises:
        ConfigurationError: Names the deployment and the nearest queue.
    """
    for entry in entries:
        pool, queue = entry.work_pool.name, entry.work_pool.work_queue_name
        if pool in pools and queue not in {DEFAULT, *pools[pool].queues}:
            close = nearest(queue, [DEFAULT, *pools[pool].queues])
            raise ConfigurationError(f"{entry.entrypoint} ({entry.name}): no work queue `{queue}` in `{pool}`: {close}")


def _plan_pool(client: "PrefectClient", name: str, definition: WorkPoolDefinition, present: Any) -> list[Change]:
    from prefect.client.schemas.actions import WorkPoolCreate

    desired = {
        "description": definition.description,
        "concurrency_limit": definition.concurrency_limit,
        "base_job_template": job_template(definition),
    }
    differs = differences(desired, present.model_dump()) if present else ()
    if present and not differs:
        return []
    create = WorkPoolCreate(name=name, type=definition.type, **cast("Any", desired))
    perform = partial(client.create_work_pool, create, overwrite=True)
    return [Change("work pool", name, "update" if present else "create", differs, perform=perform)]


def _plan_queues(
    client: "PrefectClient",
    pool: str,
    definitions: dict[str, WorkQueueDefinition],
    existing: "dict[str, WorkQueue]",
    deployed_before: frozenset[str],
) -> list[Change]:
    changes = []
    for name, definition in definitions.items():
        differs = differences(definition.model_dump(), existing[name].model_dump()) if name in existing else ()
        if name not in existing or differs:
            action = "update" if name in existing else "create"
            perform = partial(_set_queues, client, pool, definitions)
            changes.append(Change("work queue", f"{pool}/{name}", cast("Any", action), differs, perform=perform))
    changes += [
        Change("work queue", f"{pool}/{name}", "remove", perform=partial(client.delete_work_queue_by_id, item.id))
        for name, item in existing.items()
        if name not in {DEFAULT, *definitions} and f"{pool}/{name}" in deployed_before
    ]
    return changes


async def _set_queues(client: "PrefectClient", pool: str, definitions: dict[str, WorkQueueDefinition]) -> None:
    """All of a pool's, the most urgent first: each that gets its priority pushes those behind it one further."""
    existing = {item.name: item for item in await client.read_work_queues(work_pool_name=pool)}
    for name, definition in sorted(definitions.items(), key=lambda item: item[1].priority):
        if name in existing:
            await client.update_work_queue(existing[name].id, **definition.model_dump())
        else:
            await client.create_work_queue(name, work_pool_name=pool, **definition.model_dump())


async def _used_by_others(client: "PrefectClient", pool: str) -> bool:
    from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

    in_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    deployments = await read_all_async(client.read_deployments, work_pool_filter=in_pool)
    return any(OURS not in item.tags for item in deployments)
