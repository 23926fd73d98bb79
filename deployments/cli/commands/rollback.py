"""`ahc rollback`: the last good model back, in seconds, with or without a server."""

import getpass
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from deployments.cli.in_process import connect, outcome, run_here
from deployments.cli.show_run import attend
from deployments.display import colours as show
from deployments.runs.queries import run_url
from deployments.server.connection import server
from infra.backend import backend
from infra.config.environments import load_environment
from infra.errors import ConfigurationError, ModelNotFound, ServerUnreachable
from infra.local.platform.prefect_settings import WORK_POOL
from infra.ports import EndpointStatus
from infra.runs.starter_tag import started_by_tags
from infra.settings import Settings, get_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

VERSION = re.compile(r"^(?:(?P<name>[^:\s]+)[:\s]+)?v?(?P<version>\d+)$")


def rollback(
    environment: Annotated[str, typer.Argument(metavar="ENV", help="Environment, such as production.")],
    to: Annotated[
        str,
        typer.Option("--to", metavar="VERSION", help="A registered version: 7, v7 or NAME:7; default: the previous."),
    ] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; recorded on the version that is taken back.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="How it ended, as JSON.")] = False,
) -> int:
    """Bring the previous good model of an environment back, or a named version.

    With a server and a worker it runs there and shows in the UI. Otherwise it runs in this process, so that it works
    when nothing else does.

    Examples: `ahc rollback production --reason "fish is wrong since 02:10"`, `ahc rollback test --to 4`
    """
    settings = get_settings()
    load_environment(environment, settings.environments)  # a wrong name ends here
    before = _status(environment, settings)
    parameters: dict[str, Any] = {
        "environment": environment,
        "reason": reason.strip() or f"rolled back by {getpass.getuser()}",
        **(_version(to, before, settings) if to else {}),
    }
    run, why_here = _hand_over(environment, parameters, settings)
    if run is not None:
        if not as_json:
            show.show(Text(f"Rolling back {environment}: {run_url(run.id)}", style=show.QUIET))
        _, code = attend(run.id, settings)
    else:
        if not as_json:
            show.show(Text(f"Rolling back {environment} in this process: {why_here}", style=show.WAITING))
        connect(settings)
        code = outcome(run_here("rollback", parameters))
    after = _status(environment, settings)
    _tell(before, after, code, as_json=as_json)
    return code


def _status(environment: str, settings: Settings) -> EndpointStatus:
    from infra.backend import release_target

    return release_target(environment, settings).endpoint().status()


def _version(to: str, status: EndpointStatus, settings: Settings) -> dict[str, Any]:
    """The model name and version that `--to` means; the name of the environment's own model unless it says another."""
    match = VERSION.match(to.strip())
    if match is None:
        raise ConfigurationError(f"`--to {to}` is no version: write 7, v7 or NAME:7.")
    names = [model.name for model in backend(settings).champions([status.environment])[status.environment]]
    name = match["name"] or next((model.name for model in (status.live, status.previous) if model), None)
    name = name or next(iter(names), None)
    if name is None:
        raise ModelNotFound(
            f"{status.environment} never ran a model, so the name of version {match['version']} is unclear.",
            next_step=f"Give it: `ahc rollback {status.environment} --to NAME:{match['version']}`.",
        )
    return {"name": name, "version": int(match["version"])}


def _hand_over(environment: str, parameters: dict[str, Any], settings: Settings) -> "tuple[FlowRun | None, str]":
    """A run of the deployment, or why there can't be one."""
    try:
        with server(settings) as client:
            if not _has_worker(client):
                return None, "no worker is online."
            return _create_run(client, environment, parameters)
    except ServerUnreachable as error:
        return None, str(error)


def _has_worker(client: "SyncPrefectClient") -> bool:
    from prefect.exceptions import ObjectNotFound

    try:
        workers = client.read_workers_for_work_pool(WORK_POOL)
    except ObjectNotFound:
        return False
    return any(worker.status == "ONLINE" for worker in workers)


def _create_run(
    client: "SyncPrefectClient", environment: str, parameters: dict[str, Any]
) -> "tuple[FlowRun | None, str]":
    from prefect.exceptions import ObjectNotFound

    try:
        deployment = client.read_deployment_by_name(f"rollback/{environment}")
    except ObjectNotFound:
        return None, f"the server has no deployment rollback/{environment} (`ahc deploy` makes it)."
    run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters, tags=started_by_tags())
    return run, ""


def _tell(before: EndpointStatus, after: EndpointStatus, code: int, *, as_json: bool) -> None:
    if as_json:
        show.show_json({"before": before, "after": after, "exit_code": code})
        return
    was, now = (item.live.label if item.live else "no model" for item in (before, after))
    style = show.GOOD if code == 0 else show.BAD
    text = f"{after.environment} runs {now} again (it ran {was})." if code == 0 else f"{after.environment} runs {now}."
    show.show(show.marked(text, style))
