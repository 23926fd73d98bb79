"""The stages of a key rotation on a Key Vault that misbehaves."""

import pytest

from infra.azure.secrets import KeyVaultSecrets
from infra.environments import endpoint_key, load_environment
from infra.errors import ServiceUnavailable
from tasks import keys

pytestmark = pytest.mark.azure


@pytest.fixture
def environment(cloud, monkeypatch):
    monkeypatch.setattr(keys, "get_settings", lambda: cloud)
    return load_environment("test", cloud.environments)


def test_whatever_write_is_lost_no_key_that_clients_use_is_dropped(bench, cloud, environment):
    store = KeyVaultSecrets("test", cloud)

    def stored(which):
        return store.get(endpoint_key("test", which))

    old = store.ensure(endpoint_key("test"))
    store.ensure(endpoint_key("test", "secondary"))

    def loses(name, stage):
        bench.fault("outage", host="vault.azure.net", method="PUT", path=f"secrets/test-endpoint-key-{name}")
        with pytest.raises(ServiceUnavailable):
            stage.fn(environment)
        bench.clear_faults()
        assert old in (stored("primary"), stored("secondary"))

    loses("retired", keys.retire_secondary)
    loses("secondary", keys.retire_secondary)
    keys.retire_secondary.fn(environment)
    loses("primary", keys.replace_primary)
    keys.replace_primary.fn(environment)
    assert stored("secondary") == old != stored("primary")
    before = stored("primary")
    keys.replace_primary.fn(environment)
    assert stored("primary") == before
