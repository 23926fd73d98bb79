"""`ahc deploy`: make the Prefect server have exactly what the files say, and say what that changed.

First everything is planned by reading only; `--dry-run` stops there. Applying a plan that is empty does nothing, so a
second run changes nothing.
"""

import importlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from deployments.server.automations import NOT_YET, plan_automations
from deployments.server.deployment_files import ConcurrencyEntry, DeploymentEntry, ScheduleEntry, ServerFile
from deployments.server.planned_change import OURS, Change, differences
from deployments.server.work_pools import check_queues, plan_pools, pool_names
from infra.errors import ConfigurationError
from infra.runs.pages import read_all_async
from infra.version import revision

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.responses import DeploymentResponse


VARIABLE: Final = "ahc_deployed"

Recorded = Literal["pools", "limits"]


async def read_record(client: "PrefectClient") -> dict[Recorded, frozenset[str]]:
    present = await _read(client)
    return {"pools": frozenset(present.get("pools", [])), "limits": frozenset(present.get("limits", []))}


async def plan_record(client: "PrefectClient", **named: set[str]) -> list[Change]:
    """Remember what the files name; the last change of a plan, so that what wasn't removed yet is known still."""
    from prefect.client.schemas.actions import VariableCreate, VariableUpdate

    desired: dict[str, Any] = {kind: sorted(names) for kind, names in named.items()}
    present = await _read(client)
    differs = differences(desired, present)
    if not differs:
        return []

    async def perform() -> None:
        if present:
            await client.update_variable(VariableUpdate(name=VARIABLE, value=desired, tags=[OURS]))
        else:
            await client.create_variable(VariableCreate(name=VARIABLE, value=desired, tags=[OURS]))

    return [Change("record", VARIABLE, "update" if present else "create", differs if present else (), perform=perform)]


async def _read(client: "PrefectClient") -> dict[str, Any]:
    variable = await client.read_variable_by_name(VARIABLE)
    return variable.value if variable is not None and isinstance(variable.value, dict) else {}


async def plan(
    client: "PrefectClient", deployments: tuple[DeploymentEntry, ...], server: ServerFile
) -> tuple[Change, ...]:
    """What has to change on the server, in the order in which it can be done.

    Raises:
        ConfigurationError: A flow can't be imported, or a definition is not valid.
    """
    check_queues(deployments, server.work_pools)
    record = await read_record(client)
    existing = await read_deployments(client)
    names = [_full_name(entry) for entry in deployments]
    ids = {name: existing[name].id if name in existing else NOT_YET for name in names}
    changes = [
        *await plan_pools(client, server.work_pools, record["pools"]),
        *await _plan_concurrency_limits(client, server.concurrency_limits, record["limits"]),
        *await _plan_deployments(client, deployments, existing),
        *await plan_automations(client, server.automations, ids),
    ]
    removals = [change for change in changes if change.action == "remove"]
    return (
        *(change for change in changes if change.action != "remove"),
        # An automation goes before the deployment that it runs, and that before its work pool.
        *reversed(removals),
        *await plan_record(client, pools=pool_names(server.work_pools), limits=set(server.concurrency_limits)),
    )


async def apply(changes: tuple[Change, ...]) -> None:
    for change in changes:
        await change.perform()


# --- global concurrency limits ------------------------------------------------------------------------------------


async def _plan_concurrency_limits(
    client: "PrefectClient", limits: dict[str, int], deployed_before: frozenset[str]
) -> list[Change]:
    existing = {item.name: item.limit for item in await read_all_async(client.read_global_concurrency_limits)}
    changes = [
        Change(
            "concurrency limit",
            name,
            "update" if name in existing else "create",
            differences({"limit": limit}, {"limit": existing[name]}) if name in existing else (),
            perform=partial(client.upsert_global_concurrency_limit_by_name, name, limit),
        )
        for name, limit in limits.items()
        if existing.get(name) != limit
    ]
    changes += [
        Change(
            "concurrency limit", name, "remove", perform=partial(client.delete_global_concurrency_limit_by_name, name)
        )
        for name in existing
        if name in deployed_before and name not in limits
    ]
    return changes


# --- deployments --------------------------------------------------------------------------------------------------


def _full_name(entry: DeploymentEntry) -> str:
    return f"{load_entrypoint(entry.entrypoint).name}/{entry.name}"


async def _plan_deployments(
    client: "PrefectClient", entries: tuple[DeploymentEntry, ...], existing: "dict[str, DeploymentResponse]"
) -> list[Change]:
    version = revision()
    changes, names = [], set()
    for entry in entries:
        flow = load_entrypoint(entry.entrypoint)
        name = _full_name(entry)
        names.add(name)
        current = existing.get(name)
        desired = _desired(entry, flow, version, current)
        differs = differences(desired, _present(current)) if current else ()
        if current is None or differs:
            action: Literal["create", "update"] = "update" if current else "create"
            changes.append(
                Change("deployment", name, action, differs, perform=partial(_create, client, flow, entry.name, desired))
            )
    removed = [name for name, item in existing.items() if name not in names and OURS in item.tags]
    changes += [
        Change("deployment", name, "remove", perform=partial(client.delete_deployment, existing[name].id))
        for name in removed
    ]
    return changes


async def read_deployments(client: "PrefectClient") -> "dict[str, DeploymentResponse]":
    """All deployments of the server by their full name `flow/name`."""
    flows = {item.id: item.name for item in await read_all_async(client.read_flows)}
    return {f"{flows[item.flow_id]}/{item.name}": item for item in await read_all_async(client.read_deployments)}


def load_entrypoint(entrypoint: str) -> "Flow[..., Any]":
    """Import a flow by `module.function`.

    Raises:
        ConfigurationError: There is no such module or flow.
    """
    from prefect import Flow

    module, _, name = entrypoint.rpartition(".")
    try:
        flow = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"Entry point `{entrypoint}` can't be loaded: {error}.") from error
    if not isinstance(flow, Flow):
        raise ConfigurationError(f"Entry point `{entrypoint}` is not a flow.")
    return flow


def _desired(
    entry: DeploymentEntry, flow: "Flow[..., Any]", version: str | None, current: "DeploymentResponse | None"
) -> dict[str, Any]:
    from prefect.utilities.callables import parameter_schema

    limit = entry.concurrency_limit
    options = limit if isinstance(limit, ConcurrencyEntry) else None
    return {
        "version": version,
        "entrypoint": entry.entrypoint,
        "description": entry.description or flow.description,
        "tags": sorted({*entry.tags, OURS}),
        "parameters": entry.parameters,
        "work_pool_name": entry.work_pool.name,
        "work_queue_name": entry.work_pool.work_queue_name,
        "job_variables": entry.work_pool.job_variables,
        "enforce_parameter_schema": entry.enforce_parameter_schema,
        "paused": entry.paused,
        "concurrency_limit": options.limit if options else limit,
        "concurrency_options": {"collision_strategy": options.collision_strategy} if options else None,
        "parameter_openapi_schema": parameter_schema(flow).model_dump_for_openapi(),
        "schedules": {item.slug: _schedule(item, current) for item in entry.schedules},
    }


def _schedule(entry: ScheduleEntry, current: "DeploymentResponse | None") -> dict[str, Any]:
    from prefect.client.schemas.schedules import construct_schedule

    schedule = construct_schedule(
        cron=entry.cron, interval=entry.interval, rrule=entry.rrule, timezone=entry.timezone
    ).model_dump(mode="json", exclude={"anchor_date"})
    active = entry.active
    for item in current.schedules if current else []:
        # Whoever paused or started it in the UI meant it; only a schedule that is new here starts as the file says.
        if item.slug == entry.slug and item.schedule.model_dump(mode="json", exclude={"anchor_date"}) == schedule:
            active = item.active
    return {"schedule": schedule, "active": active, "parameters": entry.parameters}


def _present(current: "DeploymentResponse") -> dict[str, Any]:
    content = current.model_dump(mode="json")
    limit = current.global_concurrency_limit
    return {
        **content,
        "tags": sorted(current.tags),
        "concurrency_limit": limit.limit if limit else None,
        "concurrency_options": content["concurrency_options"]
        and {"collision_strategy": content["concurrency_options"]["collision_strategy"]},
        "schedules": {
            # One without a slug was made by somebody else: it goes, as all that the file doesn't say.
            item.slug or str(item.id): {
                "schedule": item.schedule.model_dump(mode="json", exclude={"anchor_date"}),
                "active": item.active,
                "parameters": item.parameters,
            }
            for item in current.schedules
        },
    }


async def _create(client: "PrefectClient", flow: "Flow[..., Any]", name: str, desired: dict[str, Any]) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyOptions

    options = desired["concurrency_options"]
    fields = {
        **desired,
        "schedules": [
            DeploymentScheduleCreate(slug=slug, **schedule) for slug, schedule in desired["schedules"].items()
        ],
        "concurrency_options": ConcurrencyOptions.model_validate(options) if options else None,
        # The flows are installed beside the worker: nothing is to be pulled.
        "pull_steps": [],
    }
    await client.create_deployment(await client.create_flow(flow), name, **fields)
