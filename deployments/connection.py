"""A client of the Prefect server whose failures are ours: checked once, translated once."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from deployments.runs import require_server
from infra.errors import AccessDenied, ServerUnreachable
from infra.local.prefect_env import use_prefect
from infra.settings import Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator["PrefectClient"]:
    """A client of the server that PREFECT_API_URL names, or of the one that `ahc up` starts.

    Raises:
        ServerUnreachable: It doesn't answer, now or later inside the block.
        AccessDenied: It asks for credentials other than those in PREFECT_API_AUTH_STRING.
    """
    use_prefect(settings)
    # Asked before Prefect is imported: who has no server learns it at once.
    require_server(os.environ["PREFECT_API_URL"])
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    async with get_client() as client:
        where = str(client.api_url)
        try:
            yield client
        except httpx.TransportError as error:
            raise ServerUnreachable(f"The Prefect server at {where} doesn't answer: {error}.") from error
        except PrefectHTTPStatusError as error:
            if error.response.status_code in (401, 403):
                raise AccessDenied(f"The Prefect server at {where} refuses the credentials.") from error
            raise


def ui_link(kind: str, identifier: object, api_url: str) -> str:
    """Where a person sees this in the server's UI; `kind` is a path such as `runs/flow-run`."""
    return f"{api_url.removesuffix('/').removesuffix('/api')}/v2/{kind}/{identifier}"
