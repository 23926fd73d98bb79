"""What-if's answers, noise included; the kinds of noise are those that Microsoft documents and users report."""

import pytest

from infra.azure.provisioning.what_if import PropertyChange, is_noise, read_changes, resource_type

pytest.importorskip("azure.mgmt.resource")
from azure.mgmt.resource.resources.v2025_04_01.models import WhatIfChange, WhatIfPropertyChange

GROUP = "/subscriptions/s/resourceGroups/rg/providers"
VAULT = f"{GROUP}/Microsoft.KeyVault/vaults/kv"


def delta(path, kind, before=None, after=None, children=None):
    return WhatIfPropertyChange(path=path, property_change_type=kind, before=before, after=after, children=children)


def read(*deltas, resource=VAULT):
    [change] = read_changes([WhatIfChange(resource_id=resource, change_type="Modify", delta=list(deltas))])
    return change


def test_nested_changes_are_told_by_their_whole_path():
    rule = delta("0", "Modify", children=[delta("value", "Modify", "1.2.3.4", "5.6.7.8")])
    change = read(
        delta("properties.networkAcls.ipRules", "Array", children=[rule, delta("1", "Create", after={"a": 1})])
    )
    assert [(item.path, item.kind, item.after) for item in change.properties] == [
        ("properties.networkAcls.ipRules[0].value", "Modify", "5.6.7.8"),
        ("properties.networkAcls.ipRules[1]", "Create", '{"a": 1}'),
    ]


@pytest.mark.parametrize(
    "noise",
    [
        delta("properties.vaultUri", "Delete", "https://kv.vault.azure.net/"),
        delta("properties.tenantId", "Modify", "x", "[reference(resourceId('a/b', 'c')).tenantId]"),
        delta("properties.workspaceId", "Modify", "/subscriptions/S/rg/x", "/subscriptions/s/RG/X"),
        delta("properties.provisioningState", "Modify", "Succeeded", "Updating"),
        delta("properties.sku", "NoEffect", "a", "b"),
    ],
)
def test_a_resource_of_which_only_noise_is_reported_does_not_change(noise):
    change = read(noise)
    assert change.kind == "NoChange"
    assert change.properties == ()


@pytest.mark.parametrize(
    "real",
    [
        delta("properties.enablePurgeProtection", "Modify", False, True),
        delta("tags.owner", "Delete", "somebody"),
        delta("properties.ipRules[0]", "Delete", "1.2.3.4"),
        delta("properties.publicNetworkAccess", "Create", None, "Disabled"),
    ],
)
def test_a_real_change_beside_noise_is_kept(real):
    change = read(real, delta("properties.vaultUri", "Delete", "https://kv.vault.azure.net/"))
    assert change.kind == "Modify"
    assert len(change.properties) == 1


def test_what_the_autoscaler_moved_is_no_drift():
    nodes = PropertyChange(path="properties.agentPoolProfiles[1].count", kind="Modify", before="2", after="0")
    size = PropertyChange(path="properties.agentPoolProfiles[1].vmSize", kind="Modify", before="a", after="b")
    assert is_noise("Microsoft.ContainerService/managedClusters", nodes)
    assert not is_noise("Microsoft.ContainerService/managedClusters", size)


def test_what_matters_most_comes_first_and_what_azure_can_not_tell_is_kept_with_its_reason():
    changes = read_changes(
        [
            WhatIfChange(resource_id=VAULT, change_type="Ignore"),
            WhatIfChange(resource_id=VAULT, change_type="Deploy"),
            WhatIfChange(resource_id="[format('x')]", change_type="Unsupported", unsupported_reason="Later."),
            WhatIfChange(resource_id=VAULT, change_type="Create"),
        ]
    )
    assert [change.kind for change in changes] == ["Create", "Unsupported", "Unsupported", "Ignore"]
    assert {change.reason for change in changes[1:3]} == {"Deploy", "Later."}


def test_types_are_read_from_ids():
    assert resource_type(f"{GROUP}/Microsoft.Storage/storageAccounts/a/blobServices/default") == (
        "Microsoft.Storage/storageAccounts/blobServices"
    )
    assert resource_type("/subscriptions/s/resourceGroups/rg") == "Microsoft.Resources/resourceGroups"
    assert resource_type("[format('x')]") == "unknown"


def test_the_resource_as_it_will_be_is_at_hand_and_not_stored_with_the_plan():
    [change] = read_changes([WhatIfChange(resource_id=VAULT, change_type="Create", after={"name": "kv"})])
    assert change.body == {"name": "kv"}
    assert "body" not in change.model_dump()
