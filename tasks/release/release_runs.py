"""Runs of releases on the Prefect server: finds those under way, and starts one."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from prefect.client.orchestration import get_client
from pydantic import Field, ValidationError

from infra.errors import ConfigurationError
from infra.ports import RegisteredModel
from infra.runs.pages import read_all
from model.values import Frozen
from tasks.framework.error_table import expired
from tasks.training.data import DataRequest, name_of

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

TRIGGER: Final = "trigger"
"""Who starts a release that no person started."""
MAY_GO_ON: Final = timedelta(minutes=2)
"""A crashed run is started again by an automation, an interrupted one by the next `ahc up`."""
EXPIRED_SINCE: Final = timedelta(days=14)
UNDER_WAY: Final = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")


class ReleaseRun(Frozen):
    """A run that brings a version into an environment, or waits for a person before it does."""

    id: str
    environment: str
    name: str = Field(description="Of the model.")
    version: int


class LifecycleRun(Frozen):
    """A run that releases by itself what it trains, or trained before."""

    id: str
    name: str = Field(description="Of the model.")


class UnderWay(Frozen):
    """The runs that release now, or may begin to."""

    releases: tuple[ReleaseRun, ...] = ()
    lifecycles: tuple[LifecycleRun, ...] = ()


def under_way() -> UnderWay:
    """All runs that are due and not ended; of lifecycles, those too that crashed a moment ago."""
    now = datetime.now(UTC)
    with get_client(sync_client=True) as client:
        releases = _runs(client, ["release"], UNDER_WAY, due=now)
        lifecycles = _runs(client, ["lifecycle"], UNDER_WAY, due=now)
        lifecycles += _runs(client, ["lifecycle"], ["CRASHED"], ended_since=now - MAY_GO_ON)
    return UnderWay(
        releases=tuple(release for run in releases if (release := _release(run))),
        lifecycles=tuple(lifecycle for run in lifecycles if (lifecycle := _lifecycle(run))),
    )


def releasing_now(environment: str) -> "list[FlowRun]":
    """Runs that change now what this environment runs."""
    with get_client(sync_client=True) as client:
        runs = _runs(client, ["release", "rollback"], ["RUNNING"])
    return [run for run in runs if run.parameters.get("environment") == environment]


def expired_releases() -> "list[FlowRun]":
    """Releases of the last days that ended because nobody decided in time."""
    with get_client(sync_client=True) as client:
        failed = _runs(client, ["release"], ["FAILED"], ended_since=datetime.now(UTC) - EXPIRED_SINCE)
    return [run for run in failed if run.state and expired(run.state.type.value, run.state.message or "")]


def start_release(model: RegisteredModel, environment: str) -> str:
    """Start the deployment `release/ENVIRONMENT` for this version, once however often this is called.

    Returns:
        Id of the run: of the one that this or an earlier call started, whatever became of it.

    Raises:
        ConfigurationError: There is no such deployment.
    """
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(f"release/{environment}")
        except ObjectNotFound as error:
            raise ConfigurationError(
                f"There is no deployment release/{environment}.",
                next_step=f"Add it to prefect.yaml and run `ahc deploy`; or set `gates.automatic: false` in "
                f"{environment}.yaml, then nothing is released there by itself.",
            ) from error
        run = client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"name": model.name, "version": model.version, "environment": environment, "by": TRIGGER},
            idempotency_key=f"release-{environment}-{model.name}-v{model.version}",
        )
    return str(run.id)


def _runs(
    client: "SyncPrefectClient",
    flows: Sequence[str],
    states: Sequence[str],
    *,
    due: datetime | None = None,
    ended_since: datetime | None = None,
) -> "list[FlowRun]":
    from prefect.client.schemas.filters import (
        FlowFilter,
        FlowFilterName,
        FlowRunFilter,
        FlowRunFilterEndTime,
        FlowRunFilterExpectedStartTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    kinds = FlowRunFilterStateType(any_=[StateType(word) for word in states])
    filters = FlowRunFilter(
        state=FlowRunFilterState(type=kinds),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=due) if due else None,
        end_time=FlowRunFilterEndTime(after_=ended_since) if ended_since else None,
    )
    named = FlowFilter(name=FlowFilterName(any_=list(flows)))
    return read_all(client.read_flow_runs, flow_filter=named, flow_run_filter=filters)


def _release(run: "FlowRun") -> ReleaseRun | None:
    try:
        about = {name: run.parameters.get(name) for name in ("environment", "name", "version")}
        return ReleaseRun.model_validate({"id": str(run.id), **about})
    except ValidationError:
        return None  # its flow refuses these parameters


def _lifecycle(run: "FlowRun") -> LifecycleRun | None:
    try:
        return LifecycleRun(id=str(run.id), name=name_of(DataRequest.model_validate(run.parameters.get("data", {}))))
    except ValidationError:
        return None  # likewise
