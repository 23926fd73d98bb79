"""A person's decision on a release that waits for it: may it be made, and how it reaches the run."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from deployments.runs.queries import EXPIRED, release_again, run_url
from deployments.runs.run_reader import Snapshot
from deployments.server.connection import server
from infra.config.environments import load_environment
from infra.errors import AccessDenied, ConfigurationError, ReleaseRejected
from infra.settings import get_settings
from tasks.framework.error_table import expired
from tasks.framework.run_starter import who_started
from tasks.release.gate_rules import may_not_decide

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun


def decide(client: "SyncPrefectClient", run: "FlowRun", *, approved: bool, by: str, reason: str) -> None:
    """Send a person's decision to a run that waits for it.

    Raises:
        AccessDenied: The environment's file doesn't let this person decide; the run still waits.
        ReleaseRejected: Nobody decided in time.
        ConfigurationError: The server refused it.
    """
    _require_may_decide(run, by, approved=approved)
    resume(client, run, {"approved": approved, "by": by.strip(), "reason": reason.strip()})


class Approvals:
    """Approves, in one person's name, each release that waits for it while a run is followed.

    Args:
        by: Who approves.
        reason: Why.
    """

    def __init__(self, by: str, reason: str) -> None:
        self._by = by
        self._reason = reason
        self._asked: set[UUID] = set()

    def see(self, snapshot: Snapshot, tell: Callable[[str], None]) -> None:
        """Decide on what began to wait, once each.

        Raises:
            AccessDenied, ReleaseRejected, ConfigurationError: As `decide` does.
        """
        for run in snapshot.flow_runs:
            if run.state is None or not run.state.is_paused() or run.id in self._asked:
                continue
            self._asked.add(run.id)
            with server(get_settings()) as client:
                decide(client, run, approved=True, by=self._by, reason=self._reason)
            tell(f"{run.name} is approved by {self._by}: {self._reason}")


def require_said(options: Mapping[str, str]) -> None:
    """Raises: ConfigurationError, where one of these options is empty."""
    missing = [name for name, value in options.items() if not value.strip()]
    if missing:
        raise ConfigurationError(f"A decision needs {' and '.join(missing)}.")


def require_in_time(run: "FlowRun") -> None:
    """Raises: ReleaseRejected, where nobody decided on this run in time."""
    if run.state is not None and expired(run.state.type.value, run.state.message or ""):
        raise ReleaseRejected(
            f"`{run.name}`: {EXPIRED}",
            next_step=f"Start a new release, with evidence of today: `{release_again(run)}`.",
        )


def _require_may_decide(run: "FlowRun", by: str, *, approved: bool) -> None:
    """Refuse here what the run would refuse too, only later."""
    environment = run.parameters.get("environment")
    if environment is None:
        return
    gates = load_environment(environment, get_settings().environments).gates
    if refusal := may_not_decide(by, gates, who_started(run), approved=approved):
        raise AccessDenied(
            f"`{run.name}` still waits. {refusal}",
            next_step=f"Ask one of them; {environment}'s environment file has `approvers` and `four_eyes`.",
        )


def resume(client: "SyncPrefectClient", run: "FlowRun", decision: dict[str, Any], tries: int = 5) -> None:
    """Send the decision.

    Prefect answers HTTP 200 to a decision that it refuses, with the reason inside and the run still paused. A run that
    was suspended this moment may not have stored its form yet.
    """
    for turn in range(tries):
        result = client.resume_flow_run(run.id, run_input=decision)
        if result.status.value == "ACCEPT":
            return
        require_in_time(client.read_flow_run(run.id))
        reason = str(getattr(result.details, "reason", None) or "no reason given")
        if "schema not found" not in reason.lower() or turn == tries - 1:
            raise ConfigurationError(
                f"The server refused the decision on `{run.name}`: {reason}", next_step=f"Look at it: {run_url(run.id)}"
            )
        time.sleep(0.5)
