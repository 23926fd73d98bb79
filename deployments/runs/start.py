"""How a deployment's run is started: found by name, given its parameters, started once for each key."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from deployments.runs.follow import ConnectionWatch
from deployments.runs.parameters import parse_parameters
from deployments.runs.rerun import RERUNNABLE, schedule
from infra.config.yaml_files import nearest
from infra.errors import ConfigurationError
from infra.runs.correlation import correlation_tags
from infra.runs.starter_tag import started_by_tags
from infra.runs.telemetry import configured, traceparent
from infra.settings import get_settings
from model.values import Frozen

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse


PATIENCE: Final = 60.0
"""Seconds in which a server that is there has to start a run."""


class Request(Frozen):
    """What is to be started."""

    deployment: str
    pairs: tuple[str, ...] = ()
    file: Path | None = None
    key: str | None = None
    rerun_ended: bool = False


async def start(client: "PrefectClient", request: Request, tell: Callable[[str], None]) -> "FlowRun":
    """Start the deployment, or find the run that was started with the same key.

    Args:
        client: An open client.
        request: What to start.
        tell: Called with a sentence when the server is too busy, or away, and when it is back.

    Raises:
        ConfigurationError: There is no such deployment, or its flow has no such parameter.
        ServerUnreachable: The server stays away.
    """
    deployment = await find_deployment(client, request.deployment)
    schema = deployment.parameter_openapi_schema or {}
    parameters = parse_parameters(list(request.pairs), request.file, schema, deployment.parameters)
    # A request whose answer was lost is repeated: without a key that would be a second run.
    key = request.key or str(uuid4())
    connection = ConnectionWatch(tell, PATIENCE)
    while True:
        run = await connection.ask(
            lambda: client.create_flow_run_from_deployment(
                deployment.id,
                parameters=parameters,
                idempotency_key=key,
                tags=[*correlation_tags(), *started_by_tags()],
                job_variables=_environment(),
            )
        )
        if run is not None:
            return run
        await asyncio.sleep(1)


async def go_on(client: "PrefectClient", run: "FlowRun") -> datetime | None:
    """Let a run that ended before go on from its failed step; answers since when its new attempt counts.

    Answers None where it has not ended, or somebody else lets it go on.

    Raises:
        ReleaseRejected: A person decided on it, or nobody did in time.
    """
    if run.state is None or run.state.type.value not in RERUNNABLE:
        return None
    since = datetime.now(UTC)
    try:
        await schedule(client, run.id)
    except ConfigurationError:
        return None
    return since


async def find_deployment(client: "PrefectClient", name: str) -> "DeploymentResponse":
    """The deployment `flow/name`.

    Raises:
        ConfigurationError: There is none; names the nearest.
    """
    from prefect.exceptions import ObjectNotFound

    from deployments.server.apply import read_deployments

    try:
        return await client.read_deployment_by_name(name)
    except (ObjectNotFound, ValueError):  # a name without a slash is none
        names = list(await read_deployments(client))
        hint = nearest(name, names) if names else "the server has none; run `ahc deploy` first."
        raise ConfigurationError(f"There is no deployment `{name}`: {hint}") from None


def _environment() -> dict[str, Any] | None:
    """What the process of the run is told, wherever a worker starts it: of which build this command is a part."""
    given = get_settings().correlation_id
    variables = {"AHC_CORRELATION_ID": given} if given else {}
    if configured():
        variables["TRACEPARENT"] = traceparent()
    return {"env": variables} if variables else None
