"""The names of all resources come from the outputs of the deployments."""

import pytest

from infra.azure.access.resources import environment_resources, platform_resources
from infra.config.environments import load_environment
from infra.errors import AccessDenied, ConfigurationError, NotProvisioned, ServiceUnavailable
from infra.settings import Settings
from tests.support.azure.bench import SUBSCRIPTION, azure_settings
from tests.support.azure.small_platform import provision

pytestmark = pytest.mark.azure


def test_resources_are_what_the_deployments_answer(bench, tmp_path):
    settings = azure_settings(tmp_path)
    provision(settings, "test")
    platform = platform_resources(settings)
    assert (platform.subscription_id, platform.resource_group) == (SUBSCRIPTION, "rg-ahc-platform")
    assert platform.registry_login_server == "crahcplatform.azurecr.io"
    assert "InstrumentationKey=" in platform.application_insights_connection_string
    environment = environment_resources(load_environment("test", settings.environments), settings)
    assert environment.identity_id.endswith("/id-ahc-test")
    assert environment.key_vault_url == "https://kv-ahc-test.vault.azure.net/"


def test_what_is_not_provisioned_is_named_with_the_command_that_makes_it(bench, tmp_path):
    settings = azure_settings(tmp_path)
    with pytest.raises(NotProvisioned, match="rg-ahc-platform") as caught:
        platform_resources(settings)
    assert "mode=provision -p environment=platform" in caught.value.next_step


def test_no_subscription_is_a_wrong_setting(tmp_path):
    with pytest.raises(ConfigurationError, match="AHC_AZURE_SUBSCRIPTION_ID"):
        platform_resources(Settings(home=tmp_path, backend="azure"))


@pytest.mark.parametrize(("preset", "error"), [("forbidden", AccessDenied), ("outage", ServiceUnavailable)])
def test_a_fault_while_reading_is_told_as_what_it_is(bench, tmp_path, preset, error):
    settings = azure_settings(tmp_path)
    bench.fault(preset, path="deployments/ahc-platform")
    with pytest.raises(error, match="deployment ahc-platform"):
        platform_resources(settings)
