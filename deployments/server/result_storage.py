"""Where the Prefect server's runs keep their results: on Azure a block that it must know, on one machine a folder."""

import asyncio
from typing import TYPE_CHECKING

from deployments.server.apply import apply
from deployments.server.planned_change import Change, differences
from infra.backend import backend
from infra.settings import AZURE_RESULTS, Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient


async def plan_result_storage(client: "PrefectClient", settings: Settings) -> tuple[Change, ...]:
    """What has to change on the server, so that PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK names a block that is there.

    Raises:
        NotProvisioned: The platform's storage account is not there yet.
    """
    block = backend(settings).results()
    if block is None:
        return ()
    from prefect.exceptions import ObjectNotFound

    slug, name = AZURE_RESULTS.split("/")
    wanted = block.model_dump(mode="json", include=set(type(block).model_fields))
    try:
        present = (await client.read_block_document_by_name(name, slug)).data
    except ObjectNotFound:
        present = None
    if present == wanted:
        return ()
    differs = differences(wanted, present) if present is not None else ()

    async def perform() -> None:
        await block.asave(name, overwrite=True, client=client)

    return (Change("block", AZURE_RESULTS, "create" if present is None else "update", differs, perform=perform),)


def ensure_result_storage(settings: Settings) -> None:
    """Make the server that this process talks to know where results are kept."""

    async def ensure() -> None:
        from prefect.client.orchestration import get_client

        async with get_client() as client:
            await apply(await plan_result_storage(client, settings))

    if settings.backend == "azure":
        asyncio.run(ensure())
