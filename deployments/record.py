"""What an earlier `ahc deploy` was told of, kept on the server for what can't carry our tag: pools, queues, limits.

Only what is in this record and no longer in the files is removed; what somebody made in the UI never is.
"""

from typing import TYPE_CHECKING, Any, Final, Literal

from deployments.change import OURS, Change, differences

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

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
