"""Infrastructure as code: what a deployment would change, and the deployment itself.

A deployment carries a digest over its template and parameters as an output of its own. Where that is what would be
deployed now, and what-if finds nothing to change, nothing is deployed.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from infra.azure.access.clients import resource_client
from infra.azure.access.errors import azure_errors, if_present
from infra.azure.access.resources import (
    PLATFORM,
    deployment_name,
    forget_resources,
    platform_resources,
    resource_group,
    subscription,
)
from infra.azure.provisioning.deployments import Operation, Target, Tell, follow, innermost, is_running, state_of
from infra.azure.provisioning.templates import Composed
from infra.azure.provisioning.what_if import Plan, read_changes
from infra.config.environments import load_environment
from infra.errors import Conflict, NotProvisioned, PlatformError, ProvisioningFailed
from infra.settings import Settings
from model.values import Frozen

DIGEST: Final = "templateDigest"
POLL_SECONDS: Final = 5.0
VAULTS: Final = "Microsoft.KeyVault/vaults"
VAULT_API: Final = "2023-07-01"
RECOVER: Final = "recoverVault"
"""Parameter of both templates: the vault is not made but brought back."""
OF_A_SUBSCRIPTION: Final = "https://schema.management.azure.com/schemas/2018-05-01/subscriptionDeploymentTemplate.json#"


class Provisioned(Frozen):
    """What a provisioning did."""

    name: str
    plan: Plan
    operations: tuple[Operation, ...]
    """Those that ran; none where everything was as the template says."""

    @property
    def changed(self) -> bool:
        return bool(self.operations)


def target_of(name: str, settings: Settings) -> Target:
    """Where the deployment of an environment, or of `platform`, is.

    Raises:
        ConfigurationError: There is no such environment, or no subscription is set.
    """
    environment = None if name == PLATFORM else load_environment(name, settings.environments)
    group = resource_group(name, settings)
    return Target(subscription(settings, environment), group, deployment_name(name, settings))


def group_exists(target: Target) -> bool:
    with azure_errors(f"looking for the resource group {target.group}"):
        return bool(resource_client(target.subscription_id).resource_groups.check_existence(target.group))


def plan(name: str, composed: Composed, settings: Settings) -> Plan:
    """What provisioning would change; changes nothing, and needs no resource group yet.

    Raises:
        ProvisioningFailed: Azure refuses the template.
    """
    target = target_of(name, settings)
    deployments = resource_client(target.subscription_id).deployments
    exists = group_exists(target)
    with _refusals(f"foreseeing what {target.deployment} changes"):
        if exists:
            answer = deployments.begin_what_if(
                target.group, target.deployment, {"properties": _properties(composed)}
            ).result()
        else:
            answer = deployments.begin_what_if_at_subscription_scope(
                target.deployment, {"location": composed.location, "properties": _with_group(target, composed)}
            ).result()
        if answer.error is not None:
            codes, message = innermost(answer.error)
            raise ProvisioningFailed(
                f"Azure can't foresee what {target.deployment} changes: {': '.join([*codes, message])}"
            )
    return Plan(
        name=name, resource_group=target.group, location=composed.location, changes=read_changes(answer.changes)
    )


def provision(
    name: str, composed: Composed, settings: Settings, *, tell: Tell, poll_seconds: float = POLL_SECONDS
) -> Provisioned:
    """Make reality what the template says, and wait for it. Where that is so already, nothing is deployed.

    A deployment of this name that runs already, of an earlier run that was killed for instance, is followed to its end.

    Args:
        name: An environment, or `platform`.
        composed: Its template.
        settings: Of this process.
        tell: Hears of each operation as it ends.
        poll_seconds: Between two looks at the deployment.

    Raises:
        NotProvisioned: An environment stands on the platform, which is not there yet.
        ProvisioningFailed: Names the resource, the code and the message of the innermost operation that failed.
        AccessDenied, QuotaExceeded, ServiceUnavailable, Conflict: Where that is what stopped it.
    """
    target = target_of(name, settings)
    if name != PLATFORM:
        forget_resources()
        platform_resources(settings)
    operations: tuple[Operation, ...] = ()
    if is_running(target):
        operations = follow(target, tell, expected=0, poll_seconds=poll_seconds)
    planned = plan(name, composed, settings)
    if planned.effects or not _is_deployed(target, composed):
        _start(target, composed, recover=_deleted_vault(target, planned))
        operations = follow(target, tell, expected=_expected(planned), poll_seconds=poll_seconds)
        if not _is_deployed(target, composed):
            raise Conflict(f"Somebody else deployed another template as {target.deployment} at the same time.")
    forget_resources()
    return Provisioned(name=name, plan=planned, operations=operations)


def _start(target: Target, composed: Composed, *, recover: bool = False) -> None:
    client = resource_client(target.subscription_id)
    if not group_exists(target):
        with azure_errors(f"creating the resource group {target.group}"):
            client.resource_groups.create_or_update(target.group, {"location": composed.location})
    properties = _properties(composed)
    if recover:
        properties["parameters"] = {**composed.parameters, RECOVER: {"value": True}}
    body = {"properties": properties}
    with _refusals(f"validating {target.deployment}"):
        client.deployments.begin_validate(target.group, target.deployment, body).result()
    try:
        with _refusals(f"deploying {target.deployment}"):
            client.deployments.begin_create_or_update(target.group, target.deployment, body, polling=False)
    except Conflict:
        # Somebody was quicker, or the connection broke after Azure had taken it: the one that runs is followed.
        if not is_running(target):
            raise


def _deleted_vault(target: Target, planned: Plan) -> bool:
    """Whether a Key Vault that is to be created is among those that were deleted and whose names are taken still.

    Protection against purging keeps them for their retention; they come back with the secrets that they held.
    """
    resources = resource_client(target.subscription_id).resources
    location = f"/subscriptions/{target.subscription_id}/providers/Microsoft.KeyVault/locations/{planned.location}"
    vaults = [f"{location}/deletedVaults/{change.name}" for change in planned.of("Create") if change.type == VAULTS]
    with azure_errors("looking for deleted vaults"):
        return any(if_present(partial(resources.get_by_id, vault, VAULT_API)) for vault in vaults)


def _expected(planned: Plan) -> int:
    return len(planned.of("Create", "Modify", "NoChange", "Unsupported"))


def _is_deployed(target: Target, composed: Composed) -> bool:
    state = state_of(target)
    if state is None or state.provisioning_state != "Succeeded":
        return False
    deployed = (state.outputs or {}).get(DIGEST, {}).get("value")
    return bool(deployed == digest_of(composed))


def digest_of(composed: Composed) -> str:
    """24 hex digits over template and parameters."""
    content = json.dumps([composed.template, composed.parameters], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:24]


def _properties(composed: Composed) -> dict[str, Any]:
    outputs = {**composed.template.get("outputs", {}), DIGEST: {"type": "string", "value": digest_of(composed)}}
    return {
        "mode": "Incremental",
        "template": {**composed.template, "outputs": outputs},
        "parameters": composed.parameters,
    }


def _with_group(target: Target, composed: Composed) -> dict[str, Any]:
    """The deployment within one that makes its resource group first."""
    group = {
        "type": "Microsoft.Resources/resourceGroups",
        "apiVersion": "2024-03-01",
        "name": target.group,
        "location": composed.location,
    }
    nested = {
        "type": "Microsoft.Resources/deployments",
        "apiVersion": "2024-03-01",
        "name": target.deployment,
        "resourceGroup": target.group,
        "dependsOn": [f"[subscriptionResourceId('Microsoft.Resources/resourceGroups', '{target.group}')]"],
        "properties": {"expressionEvaluationOptions": {"scope": "inner"}, **_properties(composed)},
    }
    template = {"$schema": OF_A_SUBSCRIPTION, "contentVersion": "1.0.0.0", "resources": [group, nested]}
    return {"mode": "Incremental", "template": template}


@contextmanager
def _refusals(doing: str) -> Iterator[None]:
    """What Azure says about a template that it refuses is told by its innermost words."""
    from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

    try:
        with azure_errors(doing):
            yield
    except ResourceNotFoundError as error:
        raise NotProvisioned(f"Azure does not find what is needed while {doing}: {error.message}") from error
    except PlatformError as error:
        cause = error.__cause__
        if type(error) is not PlatformError or not isinstance(cause, HttpResponseError):
            raise
        codes, message = innermost(cause.error) if cause.error else ((), cause.message)
        raise ProvisioningFailed(f"Azure refused while {doing}: {': '.join([*codes[:1], message])}") from cause
