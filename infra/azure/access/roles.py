"""Which built-in role an identity lacks, told from what Azure said when it refused."""

import re
from collections.abc import Sequence
from typing import Final

ROLES: Final = (
    (r"storageAccounts/\S*blobs|AuthorizationPermissionMismatch", "Storage Blob Data Contributor"),
    (r"vaults/secrets|ForbiddenByRbac", "Key Vault Secrets Officer"),
    (r"registries/(scheduleRun|listBuildSourceUploadUrl|runs)", "Container Registry Tasks Contributor"),
    (r"registries/\S*pull", "AcrPull"),
    (r"registries/\S*push", "AcrPush"),
    (r"userAssignedIdentities/\S*assign/action", "Managed Identity Operator"),
    (r"Microsoft\.Authorization/", "Role Based Access Control Administrator"),
    (r"Microsoft\.MachineLearningServices/registries/(assets/|read)", "AzureML Registry User"),
    (r"Microsoft\.MachineLearningServices/workspaces/", "AzureML Data Scientist"),
    (r"Microsoft\.ContainerInstance/", "Azure Container Instances Contributor Role"),
    (r"Microsoft\.Web/", "Website Contributor"),
    (r"Microsoft\.Network/trafficManagerProfiles", "Traffic Manager Contributor"),
    (r"Microsoft\.Network/privateDnsZones", "Private DNS Zone Contributor"),
    (r"subnets/join/action", "Network Contributor"),
    (r"workspaces/sharedKeys", "Log Analytics Contributor"),
    (r"Microsoft\.ContainerService/", "Azure Kubernetes Service Contributor Role"),
    (r"Microsoft\.(OperationalInsights|Insights)/", "Monitoring Contributor"),
    (r"/read\b", "Reader"),
)
"""What is refused (an action, or an error code) and the least built-in role that allows it; the first one holds."""
GENERAL: Final = "Contributor"
ELSEWHERE: Final = {
    "ForbiddenByFirewall": "Let this address in: the network rules of the named resource refuse it.",
    "ForbiddenByConnection": "Reach the resource through its private endpoint: its public access is off.",
    "PublicAccessNotPermitted": "Reach the resource through its private endpoint: its public access is off.",
    "RequestDisallowedByPolicy": "Ask who owns the named policy for an exemption, or change the template's parameters.",
}
"""Refusals that no role lifts."""


def what_to_grant(message: str, codes: Sequence[str]) -> str:
    """What to do about a refusal: the command that assigns the missing role, or what else stands in the way."""
    elsewhere = next((ELSEWHERE[code] for code in codes if code in ELSEWHERE), None)
    if elsewhere:
        return elsewhere
    action = _first_group(r"action '([^']+)'|[Aa]ction: '?([^'\r\n]+)", message)
    scope = _first_group(r"over scope '([^']+)'|[Rr]esource: '?([^'\r\n]+)", message) or "RESOURCE_ID"
    who = _first_group(r"object id '([^']+)'|oid=([0-9a-f-]+)", message) or "OBJECT_ID"
    refused = " ".join((action, *codes))
    role = next((role for pattern, role in ROLES if re.search(pattern, refused)), GENERAL)
    return (
        f"The action {action or 'in the message'} needs the role `{role}`; who may assign roles there runs: az role "
        f"assignment create --role '{role}' --assignee {who} --scope '{scope}' (it works some minutes later)."
    )


def _first_group(pattern: str, message: str) -> str:
    match = re.search(pattern, message)
    return next((group.strip() for group in match.groups() if group), "") if match else ""
