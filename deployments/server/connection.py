"""A client of the Prefect server whose failures are ours: checked once, translated once."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import httpx

from deployments.server.planned_change import OURS
from infra.backend import load_result_blocks
from infra.errors import AccessDenied, ServerUnreachable
from infra.local.platform.prefect_settings import use_prefect
from infra.settings import Settings
from tasks.framework.error_table import BUSY

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient, SyncPrefectClient


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator["PrefectClient"]:
    """A client of the server that PREFECT_API_URL names, or of the one that `ahc up` starts.

    Raises:
        ServerUnreachable: It doesn't answer, now or later inside the block.
        AccessDenied: It asks for credentials other than those in PREFECT_API_AUTH_STRING.
    """
    url = _require(settings)
    from prefect.client.orchestration import get_client

    if settings.backend == "azure":
        load_result_blocks()

    async with get_client() as client:
        with _translated(url):
            yield client


@contextmanager
def server(settings: Settings) -> Iterator["SyncPrefectClient"]:
    """The same for code that is not asynchronous; raises as `connect` does."""
    url = _require(settings)
    from prefect.client.orchestration import get_client

    with _translated(url), get_client(sync_client=True) as client:
        yield client


def _require(settings: Settings) -> str:
    use_prefect(settings)
    url = os.environ["PREFECT_API_URL"]
    # Asked before Prefect is imported (0.7 s): who has no server learns it at once.
    require_server(url)
    return url


def require_server(api_url: str) -> None:
    """Ask the server whether it is there; a busy one gets 15 s.

    Raises:
        ServerUnreachable: It isn't.
    """
    try:
        answer = httpx.get(f"{api_url}/health", timeout=httpx.Timeout(15, connect=3))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerUnreachable(f"No Prefect server answers at {api_url}: {error}.") from error
    if answer.is_server_error:
        raise ServerUnreachable(f"The Prefect server at {api_url} answers with {answer.status_code}.")


@contextmanager
def _translated(url: str) -> Iterator[None]:
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        yield
    except httpx.TransportError as error:
        raise ServerUnreachable(f"The Prefect server at {url} stopped answering: {error}.") from error
    except PrefectHTTPStatusError as error:
        if error.response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise AccessDenied(
                f"The Prefect server at {url} refuses the credentials.", next_step="Set PREFECT_API_AUTH_STRING."
            ) from error
        if error.response.status_code in BUSY:
            status = error.response.status_code
            raise ServerUnreachable(f"The Prefect server at {url} answers with {status}.") from error
        raise


def ui_link(kind: str, identifier: object, api_url: str) -> str:
    """Where a person sees this in the server's UI; `kind` is a path such as `runs/flow-run`."""
    return f"{api_url.removesuffix('/').removesuffix('/api')}/v2/{kind}/{identifier}"


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
