"""`ahc deploy`."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.server.planned_change import Change
from infra.settings import get_settings

if TYPE_CHECKING:
    pass
from deployments.server.deploy import PROJECT_FILE, SERVER_FILE, deploy_files


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


def describe(change: Change) -> str:
    """One change, and below it each value that changes, as in `version: "1a2b" -> "3c4d"`."""
    return "\n".join(
        (f"{change.action:<6} {change.kind} {change.name}", *(f"         {item}" for item in change.fields))
    )
