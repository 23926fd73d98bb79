"""`ahc deploy`."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from deployments.apply import apply, plan
from deployments.change import Change
from deployments.connection import connect
from deployments.entries import read_project, read_server
from deployments.result_storage import plan_result_storage
from infra.settings import PROJECT, Settings, get_settings

PROJECT_FILE = PROJECT / "prefect.yaml"
SERVER_FILE = PROJECT / "deployments" / "server.yaml"


def deploy(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    file: Annotated[Path, typer.Option(help="The deployments.", show_default="prefect.yaml")] = PROJECT_FILE,
    server: Annotated[
        Path, typer.Option(help="Work pools, limits and automations.", show_default="deployments/server.yaml")
    ] = SERVER_FILE,
    as_json: Annotated[bool, typer.Option("--json", help="Print the changes as JSON.")] = False,
) -> None:
    """Apply work pools, result storage, deployments, schedules, limits and automations to the Prefect server.

    Applying twice changes nothing. What has our tag and is no longer in the files is removed.
    """
    changes = asyncio.run(deploy_files(get_settings(), file, server, dry_run=dry_run))
    if as_json:
        rows = [
            {"kind": item.kind, "name": item.name, "action": item.action, "fields": item.fields} for item in changes
        ]
        print(json.dumps({"applied": not dry_run, "changes": rows}))
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
    deployments, server = read_project(project_file), read_server(server_file)
    async with connect(settings) as client:
        changes = (*await plan_result_storage(client, settings), *await plan(client, deployments, server))
        if not dry_run:
            await apply(changes)
    return changes


def describe(change: Change) -> str:
    """One change in one line, as in `update deployment lifecycle/local (description, version)`."""
    fields = f" ({', '.join(change.fields)})" if change.fields else ""
    return f"{change.action:<6} {change.kind} {change.name}{fields}"
