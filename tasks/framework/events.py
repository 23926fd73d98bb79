"""What the platform tells Prefect's automations; `deployments/server.yaml` says what they start."""

from prefect import runtime
from prefect.events import emit_event

from infra.ports import LiveModel, RegisteredModel
from infra.runs.correlation import root_run


def model_registered(model: RegisteredModel, verdict: str) -> None:
    """A version is in the registry."""
    emit_event(
        event="ahc.model.registered",
        resource={
            "prefect.resource.id": f"ahc.model.{model.name}.{model.version}",
            "prefect.resource.name": model.label,
            "ahc.verdict": verdict,
            "ahc.goes-on": _goes_on(),
        },
        payload={"name": model.name, "version": model.version, "verdict": verdict},
    )


def model_released(model: LiveModel | RegisteredModel, environment: str) -> None:
    """A version took over in an environment, so that the next environment may be due."""
    emit_event(
        event="ahc.model.released",
        resource={
            "prefect.resource.id": f"ahc.environment.{environment}",
            "prefect.resource.name": f"{model.label} in {environment}",
            # No other is released.
            "ahc.verdict": "promote",
            "ahc.goes-on": _goes_on(),
        },
        payload={"name": model.name, "version": model.version, "environment": environment},
    )


def _goes_on() -> str:
    """Whether this flow run is a part of another, such as a lifecycle, which does itself what comes next."""
    return "false" if str(runtime.flow_run.id) == root_run() else "true"
