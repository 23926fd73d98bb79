"""Plans and applies the project's files to a Prefect server."""

from pathlib import Path
from typing import TYPE_CHECKING

from deployments.server.apply import apply, plan
from deployments.server.connection import DEPLOYING, connect, one_at_a_time
from deployments.server.deployment_files import DeploymentEntry, ServerFile, placed, read_project, read_server
from deployments.server.planned_change import Change
from deployments.server.result_storage import plan_result_storage
from infra.settings import PROJECT, Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

PROJECT_FILE = PROJECT / "prefect.yaml"
SERVER_FILE = PROJECT / "deployments" / "server.yaml"


async def deploy_files(
    settings: Settings, project_file: Path = PROJECT_FILE, server_file: Path = SERVER_FILE, *, dry_run: bool = False
) -> tuple[Change, ...]:
    """Make the server have what the files say; answers what had (or, with `dry_run`, has) to change.

    Raises:
        ServerUnreachable, ConfigurationError.
    """
    server = read_server(server_file)
    deployments = placed(read_project(project_file), server)
    async with connect(settings) as client:
        if dry_run:
            return await _plan(client, settings, deployments, server)
        async with one_at_a_time(client, DEPLOYING):
            changes = await _plan(client, settings, deployments, server)
            await apply(changes)
    return changes


async def _plan(
    client: "PrefectClient", settings: Settings, deployments: tuple[DeploymentEntry, ...], server: ServerFile
) -> tuple[Change, ...]:
    return (*await plan_result_storage(client, settings), *await plan(client, deployments, server))
