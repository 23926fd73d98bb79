"""The automations of `deployments/server.yaml`, planned against those of the server."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from deployments.server.planned_change import OURS, Change, differences
from infra.errors import ConfigurationError

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.events.schemas.automations import AutomationCore

NOT_YET: Final = UUID(int=0)
"""Stands for the id of a deployment that the same plan creates."""


async def plan_automations(
    client: "PrefectClient", wanted: tuple[dict[str, Any], ...], deployments: Mapping[str, UUID]
) -> list[Change]:
    """What has to change.

    Args:
        client: An open client.
        wanted: As in Prefect's schema; but an action that runs a deployment names it, as `deployment: FLOW/NAME`. An
            automation for a deployment that there won't be is left out.
        deployments: Those that there will be, with their ids on the server, or `NOT_YET`.

    Raises:
        ConfigurationError: An automation is not valid.
    """
    wanted = tuple(content for content in wanted if _runs(content) <= set(deployments))
    existing = {item.name: item for item in await client.read_automations()}
    changes = []
    for content in wanted:
        desired = _automation(content, deployments)
        current = existing.get(desired.name)
        if current is None:
            perform = partial(_create, client, content)
            changes.append(Change("automation", desired.name, "create", perform=perform))
            continue
        # Switched off in the UI, it stays off.
        desired = desired.model_copy(update={"enabled": current.enabled})
        differs = differences(comparable(desired), comparable(current))
        if differs:
            perform = partial(_update, client, current.id, content, current.enabled)
            changes.append(Change("automation", desired.name, "update", differs, perform=perform))
    names = {str(content.get("name")) for content in wanted}
    changes += [
        Change("automation", name, "remove", perform=partial(client.delete_automation, item.id))
        for name, item in existing.items()
        if name not in names and OURS in item.tags
    ]
    return changes


def _runs(content: dict[str, Any]) -> set[str]:
    """The deployments that an automation runs."""
    return {action["deployment"] for action in content.get("actions", []) if "deployment" in action}


def _automation(content: dict[str, Any], deployments: Mapping[str, UUID]) -> "AutomationCore":
    from prefect.events.schemas.automations import AutomationCore
    from pydantic import ValidationError

    actions = [_with_id(action, deployments) for action in content.get("actions", [])]
    try:
        return AutomationCore.model_validate({**content, "actions": actions, "tags": [*content.get("tags", []), OURS]})
    except ValidationError as error:
        raise ConfigurationError(f"Automation `{content.get('name')}` is not valid: {error}") from error


def _with_id(action: dict[str, Any], deployments: Mapping[str, UUID]) -> dict[str, Any]:
    if "deployment" not in action:
        return action
    rest = {key: value for key, value in action.items() if key != "deployment"}
    return {**rest, "source": "selected", "deployment_id": str(deployments[action["deployment"]])}


async def _create(client: "PrefectClient", content: dict[str, Any]) -> None:
    await client.create_automation(_automation(content, await _ids(client, content)))


async def _update(client: "PrefectClient", identifier: UUID, content: dict[str, Any], enabled: bool) -> None:
    desired = _automation(content, await _ids(client, content))
    await client.update_automation(identifier, desired.model_copy(update={"enabled": enabled}))


async def _ids(client: "PrefectClient", content: dict[str, Any]) -> dict[str, UUID]:
    """By now, the deployments are there."""
    return {name: (await client.read_deployment_by_name(name)).id for name in _runs(content)}


def comparable(automation: Any) -> dict[str, Any]:
    """An automation as JSON, without what only the server knows, and in one order."""
    content = automation.model_dump(mode="json", exclude={"id", "owner_resource"})
    trigger = content["trigger"]
    trigger.pop("id", None)
    for name in ("expect", "after"):  # sets, in an order that changes with each process
        if name in trigger:
            trigger[name] = sorted(trigger[name])
    return cast("dict[str, Any]", content)
