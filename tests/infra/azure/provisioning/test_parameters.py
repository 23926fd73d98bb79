"""Parameters of the ARM templates: files, settings and environment files become one set of values."""

import shutil

import pytest

from infra.azure.provisioning.templates import compose
from infra.errors import ConfigurationError
from tests.support.azure import bench as benches
from tests.support.azure import parameters
from tests.support.azure.parameters import GROUP, change, with_environment

pytestmark = pytest.mark.azure


@pytest.fixture
def settings(tmp_path):
    return parameters.shipped_settings(tmp_path)


def test_values_said_elsewhere_are_taken_from_there(settings, tmp_path):
    settings = settings.model_copy(update={"azure_prefix": "shop"})
    settings = with_environment(settings, tmp_path, "production", private=True, subscription_id=GROUP)
    given = compose("production", settings)
    values = {name: item["value"] for name, item in given.parameters.items()}
    assert (values["prefix"], values["environment"], values["private"]) == ("shop", "production", True)
    assert values["latencyP95Ms"] == 250
    assert values["platformResourceGroup"] == "rg-shop-platform"
    assert values["platformSubscriptionId"] == benches.SUBSCRIPTION
    assert given.location == "westeurope"


def test_an_environment_of_ones_own_takes_a_parameter_file_of_ones_own(settings, tmp_path):
    settings = with_environment(settings, tmp_path)
    (settings.environments / "staging.yaml").write_text("name: staging\ndescription: x\nport_offset: 9\n")
    with pytest.raises(ConfigurationError, match=r"parameters/staging\.json is missing") as caught:
        compose("staging", settings)
    assert "Copy infra/arm/parameters/test.json" in caught.value.next_step
    shutil.copy(settings.azure_parameters / "test.json", settings.azure_parameters / "staging.json")
    assert compose("staging", settings).parameters["environment"] == {"value": "staging"}


@pytest.mark.parametrize(
    ("target", "values", "told"),
    [
        ("test", {"storageSkew": "x"}, "unknown parameter `storageSkew`: did you mean `storageSku`?"),
        ("test", {"storageSku": "Tape"}, '`storageSku`: "Tape" is none of'),
        ("test", {"softDeleteDays": "14"}, '`softDeleteDays`: expected a whole number, found "14"'),
        ("test", {"softDeleteDays": True}, "`softDeleteDays`: expected a whole number, found true"),
        ("test", {"softDeleteDays": 0}, "`softDeleteDays`: 0 is below 1"),
        ("test", {"logRetentionDays": 731}, "`logRetentionDays`: 731 is above 730"),
        ("test", {"prefix": "x"}, "`prefix` is not set here but by AHC_AZURE_PREFIX"),
        ("test", {"private": True}, "`private` is not set here but by the environment file's `azure.private`"),
        ("test", {"privateEndpoints": True}, "`privateEndpoints` needs `azure.private: true`"),
        ("test", {"allowedAddresses": ["203.0.113.7"]}, "`allowedAddresses` needs `azure.private: true`"),
        ("platform", {"budgetAmount": 100}, "`budgetStart` is missing"),
        ("platform", {"buildAgent": True, "natGateway": True}, "`buildAgentSshKey` is missing"),
        ("platform", {"buildAgent": True, "buildAgentSshKey": "ssh-ed25519 A"}, "`buildAgent` needs `natGateway`"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_file(settings, target, values, told):
    change(settings.azure_parameters / f"{target}.json", **values)
    with pytest.raises(ConfigurationError) as caught:
        compose(target, settings)
    assert told in str(caught.value)
    assert str(settings.azure_parameters / f"{target}.json") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not valid JSON"),
        ("[]", "the key `parameters` with an object is missing"),
        ('{"parameters": {}}', "`location` is missing (The Azure region, such as westeurope)"),
        ('{"parameters": {"location": "westeurope"}}', '`location`: expected {"value": ...}'),
        (
            '{"parameters": {"location": {"value": 1}, "storageSku": {"value": 2}}}',
            "`location`: expected a text, found 1; `storageSku`: expected a text, found 2",
        ),
    ],
)
def test_a_broken_parameter_file_is_told_as_such(settings, content, told):
    (settings.azure_parameters / "test.json").write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        compose("test", settings)
    assert told in str(caught.value)
