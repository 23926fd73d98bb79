"""The `ahc` command line: which commands there are, and what every one of them does with an error.

Each command is a function in a module of its own under `deployments/cli/commands`, imported only when it is used: so
`ahc --help` answers at once. A command answers its exit code (None is 0) or raises one of the platform's errors.
"""

import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from deployments.cli.errors import show_failure, show_usage

UsageError: type[Exception] = typer.BadParameter.__mro__[2]  # typer exports only this leaf of its usage errors

COMMANDS: Mapping[str, tuple[str, str]] = {
    "up": ("up", "Start the platform on this machine and take photos to a live endpoint."),
    "run": ("run", "Run one flow in this process."),
    "deploy": ("deploy", "Apply work pools, deployments, schedules and automations to the Prefect server."),
    "trigger": ("trigger", "Start a deployment, follow it, exit with its code."),
    "status": ("status", "What is live in each environment, and how recent runs went."),
    "model": ("model", "One registered version; the newest that may be released."),
    "ledger": ("ledger", "What was released where, by whom and why; and whether the record is whole."),
    "score": ("score", "Score image files against an environment's endpoint."),
    "why": ("why", "Why a run failed, and the command to continue."),
    "rerun": ("rerun", "Run a failed run again from the step that failed."),
    "approve": ("approve", "Approve a waiting release."),
    "reject": ("approve:reject", "Reject a waiting release."),
    "rollback": ("rollback", "Bring the previous good model of an environment back."),
    "doctor": ("doctor", "Check what this machine or environment needs; each finding with its fix."),
    "version": ("version", "The version of the platform and the commit that runs."),
}
DATA_COMMANDS: Mapping[str, tuple[str, str]] = {
    "fetch": ("data:fetch", "Download a sample data set: food (photos) or digits."),
    "list": ("data:list_samples", "List the sample data sets."),
}
DEVOPS_COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("devops:init", "Make what the pipelines need in a project of Azure DevOps, or check that it is there."),
    "approver": ("devops:approver", "In a build: who approved this stage, as JSON."),
    "mirror": ("devops:mirror", "Carry decisions made in Prefect over to the approvals that wait in Azure DevOps."),
}


class LazyGroup(TyperGroup):
    """A group that knows its commands by name and imports one when it is called."""

    table: Mapping[str, tuple[str, str]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        return [*self.table, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.table:
            return super().get_command(ctx, cmd_name)
        module, _, function = self.table[cmd_name][0].partition(":")
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(cmd_name)(
            getattr(importlib.import_module(f"deployments.cli.commands.{module}"), function or cmd_name)
        )
        return typer.main.get_command(app)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - typer passes both
        rows = [(name, text) for name, (_, text) in self.table.items()]
        rows += [(name, command.get_short_help_str(80)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.list_commands(ctx):
            from infra.config.yaml_files import nearest

            ctx.fail(f"There is no command `{args[0]}`: {nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


class RootGroup(LazyGroup):
    table = COMMANDS


class DataGroup(LazyGroup):
    table = DATA_COMMANDS


class DevOpsGroup(LazyGroup):
    table = DEVOPS_COMMANDS


app = typer.Typer(cls=RootGroup, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
data = typer.Typer(cls=DataGroup, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")
devops = typer.Typer(cls=DevOpsGroup, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(devops, name="devops")


def _show_version(asked: bool) -> None:
    if asked:
        from deployments.cli.commands.version import version

        version()
        raise typer.Exit


@app.callback()
def ahc(
    _version: Annotated[
        bool, typer.Option("--version", help="Tell version and commit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """From a folder of labelled photos to a monitored scoring endpoint."""


@data.callback()
def data_group() -> None:
    """Sample data sets."""


@devops.callback()
def devops_group() -> None:
    """A project of Azure DevOps."""


def run(arguments: Sequence[str]) -> int:
    """Run one command; answers its exit code. Every error is shown here, and only here."""
    as_json = "--json" in arguments
    try:
        with _traced(arguments):
            answer = typer.main.get_command(app).main(list(arguments), prog_name="ahc", standalone_mode=False)
    except UsageError as error:
        return show_usage(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:  # noqa: BLE001 - the last place that can turn it into words
        return show_failure(error, as_json=as_json)
    return answer if isinstance(answer, int) else 0


@contextmanager
def _traced(arguments: Sequence[str]) -> Iterator[None]:
    """A span around a command, where this shell's variables send spans somewhere."""
    if not any(name in os.environ for name in ("OTEL_TRACES_EXPORTER", "APPLICATIONINSIGHTS_CONNECTION_STRING")):
        yield
        return
    from infra.backend import connection_string
    from infra.runs import telemetry
    from infra.runs.correlation import correlation_id

    command = next((word for word in arguments if word in COMMANDS), "")
    with telemetry.span(f"ahc {command}".strip(), {"ahc.correlation_id": correlation_id()}, connection_string):
        yield


def main() -> None:
    sys.exit(run(sys.argv[1:]))
