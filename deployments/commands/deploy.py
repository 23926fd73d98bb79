"""`ahc deploy`."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.apply import apply, plan
from deployments.change import Change
from deployments.connection import connect
from deployments.entries import DeploymentEntry, ServerFile, placed, read_project, read_server
from deployments.result_storage import plan_result_storage
from deployments.turn import DEPLOYING, one_at_a_time
from infra.settings import PROJECT, Settings, get_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

PROJECT_FILE = PROJECT / "prefect.yaml"
SERVER_FILE = PROJECT / "deployments" / "server.yaml"


def deploy(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change, value by value.")] = False,
    file: Annotated[Path, typer.Option(help="The deployments.", show_default="prefect.yaml")] = PROJECT_FILE,
    server: Annotated[
        Path, typer.Option(help="Work pools, limits and automations.", show_default="deployments/server.yaml")
    ] = SERVER_FILE,
    as_json: Annotated[bool, typer.Option("--json", help="Print the changes as JSON.")] = False,
) -> None:
    """Apply work pools, result storage, deployments, schedules, limits and automations to the Prefect server.

    Applying twice changes nothing. What an earlier deploy made and the files no longer name is removed.
    """
    changes = asyncio.run(deploy_files(get_settings(), file, server, dry_run=dry_run))
    if as_json:
        rows = [
            {"kind": item.kind, "name": item.name, "action": item.action, "fields": [asdict(it) for it in item.fields]}
            for item in changes
        ]
        print(json.dumps({"applied": not dry_run, "changes": rows}, default=str))
        return
    for item in changes:
        print(describe(item))
    if not changes:
        print("Nothing changed: the server has what the files say.")
    elif dry_run:
        print(f"{len(changes)} changes would be made.")
    else:
        print(f"{len(changes)} changes made.")


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


def describe(change: Change) -> str:
    """One change, and below it each value that changes, as in `version: "1a2b" -> "3c4d"`."""
    return "\n".join(
        (f"{change.action:<6} {change.kind} {change.name}", *(f"         {item}" for item in change.fields))
    )
