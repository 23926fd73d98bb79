"""What a deployment would change, read from Azure's what-if, without the noise that what-if is known for."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, Literal

from pydantic import Field

from model.values import Frozen

Kind = Literal["Create", "Modify", "Delete", "NoChange", "Ignore", "Unsupported"]
EFFECTS: Final = ("Create", "Modify", "Delete")
"""Kinds of changes that a deployment, or reality, really makes."""
SHOWN: Final = 120
"""Characters of a property's value that are kept."""

NOISE: Final = (
    (r"managedClusters$", r"agentPoolProfiles\b.*\.(count|nodeImageVersion|currentOrchestratorVersion)$", "autoscaled"),
    (r"managedClusters/agentPools$", r"\.(count|nodeImageVersion|currentOrchestratorVersion)$", "autoscaled"),
    (r"containerGroups$", r"\.instanceView\b", "state"),
    (r"", r"(^|\.)(provisioningState|etag|createdTime|changedTime|lastModified\w*|systemData)$", "read-only"),
    (r"Insights/components$", r"\.(Flow_Type|Request_Source|Ver)$", "filled in by the service"),
    (r"KeyVault/vaults$", r"\.createMode$", "not kept"),
    (r"userAssignedIdentities$", r"\.(clientId|principalId|tenantId)$", "read-only"),
)
"""Resource type, property and why what-if reports it although a deployment changes nothing."""


class PropertyChange(Frozen):
    """One property that would change; values as short text."""

    path: str
    kind: Literal["Create", "Modify", "Delete"]
    before: str = ""
    after: str = ""


class ResourceChange(Frozen):
    """What would happen to one resource."""

    resource_id: str
    kind: Kind
    properties: tuple[PropertyChange, ...] = ()
    noise: int = 0
    """Reported property changes that are none."""
    reason: str = ""
    """Why what-if can't tell, where it can't."""
    body: dict[str, Any] = Field(default={}, exclude=True, repr=False)
    """The resource as it will be, as far as what-if computes it; what reads a stored plan finds none."""

    @property
    def type(self) -> str:
        """Such as `Microsoft.Storage/storageAccounts/blobServices`; of a resource group its own type."""
        return resource_type(self.resource_id)

    @property
    def name(self) -> str:
        return self.resource_id.rpartition("/")[2] if self.resource_id.startswith("/") else self.resource_id


class Plan(Frozen):
    """What provisioning `name` now would change."""

    name: str
    resource_group: str
    location: str
    changes: tuple[ResourceChange, ...]

    def of(self, *kinds: Kind) -> tuple[ResourceChange, ...]:
        return tuple(change for change in self.changes if change.kind in kinds)

    @property
    def effects(self) -> tuple[ResourceChange, ...]:
        """What would really change; empty where reality is what the template says."""
        return self.of("Create", "Modify", "Delete")

    @property
    def summary(self) -> str:
        """One line: how many of which kind."""
        counts = [f"{len(changes)} to {kind.lower()}" for kind in EFFECTS if (changes := self.of(kind))]
        unsure = len(self.of("Unsupported"))
        return ", ".join([*counts, *([f"{unsure} not foreseeable"] if unsure else [])]) or "no changes"


def resource_type(resource_id: str) -> str:
    """The type of a resource, from its id; `unknown` where that is an expression that only a deployment computes."""
    if not resource_id.startswith("/"):
        return "unknown"
    _, provider, tail = resource_id.rpartition("/providers/")
    if not provider:
        return "Microsoft.Resources/resourceGroups"
    namespace, *rest = tail.split("/")
    return "/".join([namespace, *rest[::2]])


def read_changes(changes: Any) -> tuple[ResourceChange, ...]:
    """The changes of a what-if result (azure.mgmt.resource WhatIfChange), those that matter most first."""
    order = [*EFFECTS, "Unsupported", "NoChange", "Ignore"]
    read = [_read(change) for change in changes or ()]
    return tuple(sorted(read, key=lambda change: (order.index(change.kind), change.type, change.resource_id)))


def _read(change: Any) -> ResourceChange:
    kind, identifier = change.change_type, str(change.resource_id)
    if kind not in (*EFFECTS, "NoChange", "Ignore"):
        # "Deploy" means that it would be deployed, with what outcome Azure can't tell.
        return ResourceChange(resource_id=identifier, kind="Unsupported", reason=change.unsupported_reason or kind)
    reported = list(_flat(change.delta, "")) if kind == "Modify" else []
    real = tuple(item for item in reported if not is_noise(resource_type(identifier), item))
    return ResourceChange(
        resource_id=identifier,
        kind="NoChange" if kind == "Modify" and not real else str(kind),
        properties=real,
        noise=len(reported) - len(real),
        body=change.after or {},
    )


def is_noise(kind: str, change: PropertyChange) -> bool:
    """Whether a property change of a resource of this type is reported although nothing would change.

    A value that only the deployment itself can compute is reported as the expression, and one that the template leaves
    to the service as to be deleted. Identifiers differ in upper and lower case.
    """
    # What a template doesn't state, an incremental deployment leaves to the service; tags are stated as a whole.
    left_alone = change.kind == "Delete" and not re.match(r"tags\b|.*\[\d+\]$", change.path)
    uncomputed = re.fullmatch(r"\[\w+\(.*\]", change.after) is not None
    same_id = change.before.startswith("/subscriptions/") and change.before.lower() == change.after.lower()
    noise = any(re.search(types, kind) and re.search(path, change.path) for types, path, _ in NOISE)
    return left_alone or uncomputed or same_id or noise


def _flat(delta: Any, prefix: str) -> Iterator[PropertyChange]:
    for item in delta or ():
        path = _joined(prefix, str(item.path))
        kind = str(item.property_change_type)
        if kind == "NoEffect":
            continue
        if item.children:
            yield from _flat(item.children, path)
        else:
            yield PropertyChange.model_validate(
                {
                    "path": path,
                    "kind": "Modify" if kind == "Array" else kind,
                    "before": _short(item.before),
                    "after": _short(item.after),
                }
            )


def _joined(prefix: str, path: str) -> str:
    if path.isdigit():
        return f"{prefix}[{path}]"
    return f"{prefix}.{path}" if prefix else path


def _short(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
