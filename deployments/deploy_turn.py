"""One `ahc deploy` at a time against a server: two pipelines may deploy in the same minute."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from deployments.change import OURS

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

VARIABLE: Final = "ahc_deploying"
GIVEN_UP_AFTER: Final = 120.0
"""Seconds after which a deploy that still holds the turn is taken for dead; a live one needs 20 at most."""


@asynccontextmanager
async def one_deploy_at_a_time(client: "PrefectClient") -> AsyncIterator[None]:
    """Wait until no other deploy plans or applies, and keep others waiting inside the block.

    A variable of the server is the lock: of those who create it at once, one succeeds.
    """
    from prefect.client.schemas.actions import VariableCreate
    from prefect.exceptions import ObjectAlreadyExists

    mine = VariableCreate(name=VARIABLE, value=socket.gethostname(), tags=[OURS])
    holder, since = None, time.monotonic()
    while True:
        try:
            held = await client.create_variable(mine)
            break
        except ObjectAlreadyExists:
            other = await client.read_variable_by_name(VARIABLE)
        if other is not None and other.id != holder:
            holder, since = other.id, time.monotonic()
        elif other is not None and time.monotonic() - since > GIVEN_UP_AFTER:
            await _end(client)
        await asyncio.sleep(0.5)
    try:
        yield
    finally:
        present = await client.read_variable_by_name(VARIABLE)
        if present is not None and present.id == held.id:
            await _end(client)


async def _end(client: "PrefectClient") -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        await client.delete_variable_by_name(VARIABLE)
    except ObjectNotFound:
        return
