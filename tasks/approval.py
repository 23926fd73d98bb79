"""A person's decision on a release: asked for with the evidence, and recorded."""

from datetime import UTC, datetime

from prefect import get_run_logger
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from infra.backend import registry
from infra.environments import Environment
from infra.errors import ReleaseRejected
from infra.ports import RegisteredModel
from infra.settings import get_settings
from tasks.artifacts import create_markdown_artifact, table
from tasks.stage import Result, stage


class ReleaseDecision(RunInput):
    """What the form in the Prefect UI asks, and what `ahc approve` and `ahc reject` send."""

    approved: bool = Field(description="Whether this version may go live.")
    by: str = Field(min_length=1, description="Who decides.")
    reason: str = Field(min_length=1, description="Why; recorded on the model version.")


@stage("Approve", "record the decision on {model.name} v{model.version}")
def record_decision(model: RegisteredModel, environment: Environment, decision: ReleaseDecision) -> Result:
    """Write who decided what, when and why on the model version.

    Raises:
        ReleaseRejected: The decision was no.
    """
    word = "approved" if decision.approved else "rejected"
    record = f"{word} by {decision.by} at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {decision.reason}"
    registry(get_settings()).tag(model, {f"decision.{environment.name}": record})
    get_run_logger().info("%s for %s %s", model.label, environment.name, record)
    if not decision.approved:
        raise ReleaseRejected(f"The release of {model.label} to {environment.name} was {record}.")
    return Result()


def wait_for_approval(model: RegisteredModel, environment: Environment) -> ReleaseDecision:
    """Suspend this run until a person decides; meanwhile no process waits. The rerun gets the decision at once."""
    evidence: list[tuple[object, ...]] = sorted(model.tags.items())
    create_markdown_artifact(
        key="approval",
        description=f"{model.label} waits for a decision on {environment.name}",
        markdown=f"# {model.label} to {environment.name}?\n\nDecide with the form of this run (Resume), or with "
        f'`ahc approve RUN --by YOU --reason "..."` or `ahc reject RUN --by YOU --reason "..."`.\n\n'
        + table(("evidence", ""), evidence),
    )
    return suspend_flow_run(
        wait_for_input=ReleaseDecision.with_initial_data(
            description=f"Release **{model.label}** to **{environment.name}**? {model.tags.get('verdict_reason', '')}",
            approved=True,
        ),
        timeout=int(environment.gates.approval_hours * 3600),
        key=f"{environment.name}-{model.version}",
    )
