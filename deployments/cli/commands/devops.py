"""`ahc devops`: an Azure DevOps project made from files, and decisions that are the same there and in Prefect."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.display import colours as show
from infra.azure_devops.project_file import PLATFORM, PREFIX, ProjectFile, read_project_file
from infra.config.environments import environment_names, load_environment
from infra.errors import ConfigurationError
from infra.settings import Settings, get_settings

if TYPE_CHECKING:
    from infra.azure_devops.client import DevOps
    from infra.azure_devops.plan import Change

AsJson = Annotated[bool, typer.Option("--json", help="The facts as JSON.")]
OfABuild = ("SYSTEM_COLLECTIONURI", "SYSTEM_TEAMPROJECT", "BUILD_BUILDID", "SYSTEM_STAGENAME")


def init(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only read, and show what would be made.")] = False,
    organisation: Annotated[str, typer.Option(help="In place of the file's, such as https://dev.azure.com/NAME.")] = "",
    project: Annotated[str, typer.Option(help="In place of the file's.")] = "",
    file: Annotated[Path | None, typer.Option(help="What it is to have.", show_default="AHC_DEVOPS")] = None,
    as_json: AsJson = False,
) -> None:
    """Make what the pipelines need in a project of Azure DevOps, or check that it is there; a second time nothing.

    Connections, variable groups, pool, environments with approvals, pipelines and their permissions. Signs in with
    AZURE_DEVOPS_EXT_PAT, or as `az login` did. What people changed is shown and mended, what isn't ours is left.

    Examples: `ahc devops init --dry-run`, `ahc devops init --organisation https://dev.azure.com/contoso`
    """
    settings = get_settings()
    project_file = read_project_file(file or settings.devops, organisation=organisation, project=project)
    changes = _set_up(project_file, settings, dry_run=dry_run)
    if as_json:
        show.show_json({"applied": not dry_run, "changes": changes})
        return
    for change in changes:
        print(describe(change))
    print(_conclusion(changes, dry_run=dry_run))


def approver(
    environment: Annotated[str, typer.Option(help="Which environment's approval, with or without `ahc-`.")],
) -> None:
    """In a step of a stage: who approved this stage, as JSON for `ahc trigger --approved-by`.

    The fields `name` and `comment` are empty where nobody had to approve. Needs SYSTEM_ACCESSTOKEN.

    Example: `ahc devops approver --environment production`
    """
    from infra.azure_devops.approvals import approver as find_approver

    settings = get_settings()
    address, project, build, stage = _build_variables()
    project_file = read_project_file(settings.devops)
    place = environment.removeprefix(PREFIX)
    gates = project_file.platform if place == PLATFORM else load_environment(place, settings.environments).gates
    with _organisation(address) as devops:
        found = find_approver(devops, project, int(build), stage, gates, place, project_file.mirror or "")
    if gates.approval and not found.name:
        print(
            f"{place} asks for an approval, and Azure DevOps had none for the stage {stage}: Prefect will ask. "
            "`ahc devops init` makes the check.",
            file=sys.stderr,
        )
    show.show_json(found)


def mirror(as_json: AsJson = False) -> None:
    """Give the approvals that wait in Azure DevOps the decisions that were made in Prefect; a second time nothing.

    The flow `reconciliation` does the same by itself.

    Example: `ahc devops mirror`
    """
    from infra.azure_devops.approvals import carry_over
    from infra.backend import backend

    settings = get_settings()
    project_file = read_project_file(settings.devops)
    with _organisation(_required(project_file)) as devops:
        carried = carry_over(
            devops, project_file, backend(settings).ledger().events, environment_names(settings.environments)
        )
    if as_json:
        show.show_json(carried)
        return
    for item in carried:
        print(f"build {item.build}: {item.version} for {item.environment} is {item.decision} by {item.by}")
    if not carried:
        print("Nothing waits in Azure DevOps that was decided in Prefect.")


def describe(change: "Change") -> str:
    """One change in one line, with what a person should do about what was left alone."""
    fields = f" ({', '.join(change.fields)})" if change.fields else ""
    return f"{change.action:<7} {change.kind} {change.name}{fields}" + (
        f"\n        {change.hint}" if change.hint else ""
    )


def _set_up(project_file: ProjectFile, settings: Settings, *, dry_run: bool) -> "tuple[Change, ...]":
    from infra.azure_devops.setup import Azure, set_up
    from infra.azure_devops.webhook import ensure_webhook_secret

    address = _required(project_file)
    azure = Azure.of(settings)
    with _organisation(address) as devops:
        return set_up(devops, project_file, azure, settings, lambda: ensure_webhook_secret(settings), dry_run=dry_run)


def _conclusion(changes: "tuple[Change, ...]", *, dry_run: bool) -> str:
    ours = sum(change.action != "differs" for change in changes)
    if ours:
        return f"{ours} changes would be made." if dry_run else f"{ours} changes made."
    if changes:
        return "Nothing to do; what differs is left to people."
    return "Nothing to do: the project has what the files say."


def _organisation(address: str) -> "DevOps":
    from infra.azure_devops.client import DevOps
    from infra.azure_devops.sign_in import authorization

    return DevOps(address, authorization)


def _required(project_file: ProjectFile) -> str:
    if project_file.organisation is None:
        raise ConfigurationError(
            "No organisation of Azure DevOps is named.",
            next_step="Set `organisation: https://dev.azure.com/NAME` in deployments/devops.yaml, or give "
            "--organisation.",
        )
    return project_file.organisation


def _build_variables() -> list[str]:
    missing = [name for name in (*OfABuild, "SYSTEM_ACCESSTOKEN") if not os.environ.get(name)]
    if missing:
        raise ConfigurationError(
            f"This is no step of a build: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set.",
            next_step="Run it in a stage of a pipeline, with `env: {SYSTEM_ACCESSTOKEN: $(System.AccessToken)}`.",
        )
    return [os.environ[name] for name in OfABuild]
