"""One at a time against a server: two pipelines may deploy, or rerun one run, in the same second."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from deployments.change import OURS

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

DEPLOYING: Final = "ahc_deploying"
RERUNNING: Final = "ahc_rerunning"
"""The variables of the server that are the locks."""
GIVEN_UP_AFTER: Final = {DEPLOYING: 120.0, RERUNNING: 15.0}
"""Seconds after which whoever still holds a turn is taken for dead; a deploy needs 20 at most, a rerun one."""


@asynccontextmanager
async def one_at_a_time(client: "PrefectClient", lock: str) -> AsyncIterator[None]:
    """Wait until nobody else is inside this lock's block, and keep others waiting inside it.

    A variable of the server is the lock: of those who create it at once, one succeeds.
    """
    from prefect.client.schemas.actions import VariableCreate
    from prefect.exceptions import ObjectAlreadyExists

    mine = VariableCreate(name=lock, value=socket.gethostname(), tags=[OURS])
    holder, since = None, time.monotonic()
    while True:
        try:
            held = await client.create_variable(mine)
            break
        except ObjectAlreadyExists:
            other = await client.read_variable_by_name(lock)
        if other is not None and other.id != holder:
            holder, since = other.id, time.monotonic()
        elif other is not None and time.monotonic() - since > GIVEN_UP_AFTER[lock]:
            await _end(client, lock)
        await asyncio.sleep(0.5)
    try:
        yield
    finally:
        present = await client.read_variable_by_name(lock)
        if present is not None and present.id == held.id:
            await _end(client, lock)


async def _end(client: "PrefectClient", lock: str) -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        await client.delete_variable_by_name(lock)
    except ObjectNotFound:
        return
