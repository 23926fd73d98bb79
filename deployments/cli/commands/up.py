"""`ahc up`: the platform of this machine, and one lifecycle through it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.interrupt import run_interruptible
from infra.settings import get_settings


def up(
    once: Annotated[bool, typer.Option("--once", help="Stop when the lifecycle ended; exit with its code.")] = False,
    data: Annotated[str, typer.Option(metavar="DIR|NAME", help="A folder, manifest, URL or sample data set.")] = "food",
    parameter: Annotated[
        list[str] | None, typer.Option("-p", metavar="KEY=VALUE", help="A parameter of the lifecycle.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Show the run in a browser.")] = False,
    file: Annotated[Path | None, typer.Option(help="The deployments to apply.", show_default="prefect.yaml")] = None,
) -> int:
    """Start the platform on this machine, take photos to live endpoints, and stay until Ctrl-C.

    Ctrl-C stops what this started and nothing else. A lifecycle that was interrupted goes on at its last finished step
    with the next `ahc up`.
    """
    settings = get_settings()
    from infra.local.platform.prefect_settings import prefect_environment

    # This is about the server of this machine, whatever server the caller's environment names.
    os.environ.update(prefect_environment(settings))
    from deployments.cli.up_session import Session
    from deployments.server.deploy import PROJECT_FILE

    session = Session(settings, file or PROJECT_FILE, once=once, open_browser=open_browser)
    return run_interruptible(session.run(_source(data), parameter or []))


def _source(data: str) -> str:
    """What `--data` names, independent of the folder that `ahc` was called in."""
    path = Path(data).expanduser()
    return str(path.resolve()) if path.exists() else data
