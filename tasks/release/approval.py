"""A person's decision on a release: asked for with the evidence, checked, recorded; without one in time it expires."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from prefect import get_run_logger, runtime
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field, ValidationError

from infra.backend import backend
from infra.config.environments import Environment, load_environment
from infra.errors import ConfigurationError, ReleaseRejected
from infra.ports import RegisteredModel
from infra.runs.correlation import root_run
from infra.settings import get_settings
from tasks.framework.cache_key import key_of
from tasks.framework.error_table import expired
from tasks.framework.run_starter import started_by
from tasks.framework.stage import Result, stage
from tasks.release.evidence import show_evidence
from tasks.release.gate_rules import may_not_decide, release_command
from tasks.release.ledger_note import note

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

PLATFORM: Final = "the platform"
"""Who lets a release expire."""


class ReleaseDecision(RunInput):
    """What the form in the Prefect UI asks, and what `ahc approve` and `ahc reject` send."""

    approved: bool = Field(description="Whether this version may go live.")
    by: str = Field(pattern=r"\S", description="Who decides.")
    reason: str = Field(pattern=r"\S", description="Why; recorded on the model version and in the release ledger.")


def decide(model: RegisteredModel, environment: Environment, by: str = "") -> None:
    """Suspend this run until somebody who may decides; no process waits. A rerun gets the same answers at once.

    Args:
        model: The version in question.
        environment: Where it is to go live.
        by: Who started the release; where nobody is named, who started the run.

    Raises:
        ReleaseRejected: The decision was no, or it was yes too long ago.
        ConfigurationError: This run has no deployment, so that nobody could continue it.
    """
    if runtime.deployment.id is None:
        command = release_command(environment.name, model.name, model.version)
        raise ConfigurationError(
            f"A release to {environment.name} waits for a person, and nobody could continue a run of this process.",
            next_step=f"Start it where a worker continues it: `{command}`.",
        )
    starter = started_by(by)
    show_evidence(model, environment, starter)
    decision = _decision_that_counts(model, environment, starter)
    recorded = record_decision(model, environment, decision)
    assert recorded.origin is not None
    hours = environment.gates.approval_hours
    if datetime.now(UTC) - recorded.origin.at > timedelta(hours=hours):
        reason = (
            f"{decision.by} approved at {recorded.origin.at:%Y-%m-%d %H:%M} UTC, and an approval holds {hours:g} hours"
        )
        raise _expired(model, environment, reason)


def _decision_that_counts(model: RegisteredModel, environment: Environment, starter: str) -> ReleaseDecision:
    """The first decision of a person who may decide; any other is told, and asked for again: a typo costs nothing."""
    attempt = 0
    while True:
        attempt += 1
        try:
            decision = _ask(model, environment, attempt)
        except ValidationError:
            # This question was asked before and has no answer: somebody set its expired run going again.
            reason = f"nobody decided within {environment.gates.approval_hours:g} hours"
            raise _expired(model, environment, reason) from None
        refusal = may_not_decide(decision.by, environment.gates, starter, approved=decision.approved)
        if refusal is None:
            return decision
        get_run_logger().warning("This decision doesn't count: %s The release waits again.", refusal)


def _expired(model: RegisteredModel, environment: Environment, reason: str) -> ReleaseRejected:
    note(environment.name, "expired", model, by=PLATFORM, reason=reason)
    command = release_command(environment.name, model.name, model.version)
    return ReleaseRejected(
        f"The release of {model.label} to {environment.name} expired: {reason}.",
        next_step=f"Start a new one, with evidence of today: `{command}`.",
    )


def _ask(model: RegisteredModel, environment: Environment, attempt: int) -> ReleaseDecision:
    return suspend_flow_run(
        wait_for_input=ReleaseDecision.with_initial_data(
            description=f"Release **{model.label}** to **{environment.name}**? The evidence is among the run's "
            f"artifacts. {model.tags.get('verdict_reason', '')}",
            approved=True,
        ),
        timeout=max(1, int(environment.gates.approval_hours * 3600)),
        # The same question of the same run has the same key, so that its answer is found.
        key=f"{environment.name}-{model.version}-{attempt}",
    )


def _decision_key(model: RegisteredModel, environment: Environment, decision: ReleaseDecision) -> str:
    # The model's tags, which the decision changes, are no part of it.
    return key_of("decision", root_run(), environment.name, model.digest, decision, code=[])


@stage("Approve", "record the decision on {model.name} v{model.version}", key=_decision_key)
def record_decision(model: RegisteredModel, environment: Environment, decision: ReleaseDecision) -> Result:
    """Write who decided what, when and why on the model version and in the release ledger.

    Raises:
        ReleaseRejected: The decision was no.
    """
    word: Literal["approved", "rejected"] = "approved" if decision.approved else "rejected"
    by, reason = " ".join(decision.by.split()), decision.reason.strip()
    record = f"{word} by {by} at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {reason}"
    backend(get_settings()).registry().tag(model, {f"decision.{environment.name}": record})
    note(environment.name, word, model, by=by, reason=reason)
    get_run_logger().info("%s for %s %s", model.label, environment.name, record)
    if not decision.approved:
        raise ReleaseRejected(f"The release of {model.label} to {environment.name} was {record}.")
    return Result()


def note_expired(run: "FlowRun") -> bool:
    """Write into the ledger, once, that nobody decided on this release in time; answers whether this call wrote it.

    Args:
        run: A flow run with its final state and parameters, of the flow `release`.

    Raises:
        LedgerBroken: The ledger of its environment is not whole.
    """
    state = run.state
    if state is None or not expired(state.type.value, state.message or ""):
        return False
    settings = get_settings()
    name, version, environment = (run.parameters[key] for key in ("name", "version", "environment"))
    events = backend(settings).ledger()
    if any(event.kind == "expired" and event.run == str(run.id) for event in events.newest(environment)):
        return False
    model = backend(settings).registry().get(name, version)
    hours = load_environment(environment, settings.environments).gates.approval_hours
    events.append(
        environment,
        "expired",
        model.as_live,
        by=PLATFORM,
        reason=f"nobody decided within {hours:g} hours",
        run=str(run.id),
    )
    return True
