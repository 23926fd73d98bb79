"""Template deployments while they run: their operations, the nested ones too, and what stopped one."""

import json
import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter

from infra.azure.access.clients import resource_client
from infra.azure.access.errors import azure_errors, if_present, refusal
from infra.azure.provisioning.what_if import resource_type
from infra.errors import PlatformError, ProvisioningFailed
from infra.waiting import polls
from model.values import Frozen

ENDED: Final = frozenset({"Succeeded", "Failed", "Canceled"})
NESTED: Final = "microsoft.resources/deployments"


class Target(NamedTuple):
    """A deployment, by where it is."""

    subscription_id: str
    group: str
    deployment: str


class Operation(Frozen):
    """One resource of a deployment, when Azure is done with it."""

    resource_id: str
    succeeded: bool
    seconds: float = 0.0
    codes: tuple[str, ...] = ()
    """Azure's error codes where it failed, innermost first."""
    message: str = ""
    """Azure's innermost words where it failed."""

    @property
    def label(self) -> str:
        return f"{resource_type(self.resource_id)} {self.resource_id.rpartition('/')[2]}"


Tell = Callable[[Operation, int, int], None]
"""Is called with each operation as it ends, how many have ended, and how many there are as far as is known."""


def state_of(target: Target) -> Any:
    """The deployment's properties (azure.mgmt.resource DeploymentPropertiesExtended); None where there is none."""
    deployments = resource_client(target.subscription_id).deployments
    with azure_errors(f"reading the deployment {target.deployment}"):
        deployment = if_present(lambda: deployments.get(target.group, target.deployment))
    return deployment and deployment.properties


def is_running(target: Target) -> bool:
    state = state_of(target)
    return state is not None and state.provisioning_state not in ENDED


def follow(target: Target, tell: Tell, *, expected: int, poll_seconds: float) -> tuple[Operation, ...]:
    """Wait until a deployment has ended, whoever started it; answers its operations.

    Args:
        target: The deployment.
        tell: Hears of each operation as it ends.
        expected: How many operations there will be, as far as is known.
        poll_seconds: Between two looks at it.

    Raises:
        ProvisioningFailed: Names the resource, the code and the message of the innermost operation that failed.
        AccessDenied, QuotaExceeded, ServiceUnavailable, Conflict: Where that is what stopped it.
    """
    operations: dict[str, Operation] = {}
    for _ in polls(math.inf, pause=poll_seconds):
        state = state_of(target)
        with azure_errors(f"following the deployment {target.deployment}"):
            for operation in _ended(target):
                if operation.resource_id not in operations:
                    operations[operation.resource_id] = operation
                    tell(operation, len(operations), max(expected, len(operations)))
        if state is None:
            raise ProvisioningFailed(f"The deployment {target.deployment} was deleted while it ran.")
        if state.provisioning_state in ENDED:
            break
    if state.provisioning_state != "Succeeded":
        raise _failure(target, state, [item for item in operations.values() if not item.succeeded])
    return tuple(operations.values())


def _ended(target: Target) -> Iterator[Operation]:
    """What has ended, in the order of its end; inside nested deployments too."""
    operations = resource_client(target.subscription_id).deployment_operations
    # None of a nested deployment that has been announced and not started yet.
    items = if_present(lambda: list(operations.list(target.group, target.deployment)))
    for item in reversed(items or []):
        operation = item.properties
        resource = operation.target_resource
        if resource is None or operation.provisioning_operation in {"Read", "Action", "EvaluateDeploymentOutput"}:
            continue
        if (resource.resource_type or "").lower() == NESTED:
            inner = list(_ended(_target(resource.id)))
            yield from inner
            if operation.provisioning_state != "Failed" or not all(item.succeeded for item in inner):
                continue
        if operation.provisioning_state in ENDED:
            yield _operation(operation)


def _target(deployment_id: str) -> Target:
    parts = deployment_id.strip("/").split("/")
    return Target(parts[1], parts[3], parts[-1])


def _operation(answer: Any) -> Operation:
    codes, message = innermost(answer.status_message.error if answer.status_message else None)
    succeeded = answer.provisioning_state == "Succeeded"
    return Operation(
        resource_id=answer.target_resource.id,
        succeeded=succeeded,
        seconds=TypeAdapter(timedelta).validate_python(answer.duration or 0).total_seconds(),
        codes=codes,
        message=message or (not succeeded and answer.status_code) or "",
    )


def innermost(error: Any) -> tuple[tuple[str, ...], str]:
    """All codes of an error, innermost first, and its innermost words: the outer ones say that something failed.

    A resource provider's own answer may be JSON within the message.
    """
    codes: list[str] = []
    message = ""
    while error is not None:
        code, message, details = _parts(error)
        codes.insert(0, code)
        quoted = _quoted(message)
        error = details[0] if details else quoted
    return tuple(code for code in codes if code), message


def _parts(error: Any) -> tuple[str, str, list[Any]]:
    if isinstance(error, dict):
        return str(error.get("code") or ""), str(error.get("message") or ""), list(error.get("details") or [])
    return str(error.code or ""), str(error.message or ""), list(error.details or [])


def _quoted(message: str) -> dict[str, Any] | None:
    if not message.lstrip().startswith("{"):
        return None
    try:
        content = json.loads(message)
    except ValueError:
        return None
    inner = content.get("error", content)
    return inner if isinstance(inner, dict) and "message" in inner else None


def _failure(target: Target, state: Any, failed: list[Operation]) -> PlatformError:
    name = target.deployment
    if state.provisioning_state == "Canceled":
        return ProvisioningFailed(f"The deployment {name} was cancelled.", next_step="Provision again.")
    if failed:
        where, codes, message = f" at {failed[-1].label}", failed[-1].codes, failed[-1].message
    else:
        where, (codes, message) = "", innermost(state.error)
    text = f"The deployment {name} failed{where}: {': '.join([*codes[:1], message])}"
    return refusal(codes, 200, message, text)
