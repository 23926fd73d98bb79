"""The shipped scoring image as a container with the least rights, against the bench's vault and blobs."""

import signal
import ssl
import subprocess

import pytest
from pydantic import SecretStr

from infra.azure.storage.key_vault import KeyVaultSecrets
from infra.config.environments import endpoint_key
from infra.version import revision
from tests.support.azure.scoring_containers import key, published
from tests.support.containers.podman import BASE, container, environment, podman
from tests.support.load import Load
from tests.support.local_endpoint import eventually

pytestmark = [pytest.mark.containers, pytest.mark.azure]


def start(image, config, on_the_bench, **changes):
    variables, options = on_the_bench
    return container(image, config.port, {**variables, **config.variables(), **changes}, *options)


def test_the_image_is_small_and_says_what_it_is(scoring_image):
    size, base = (int(podman("image", "inspect", "--format", "{{.Size}}", name)) for name in (scoring_image, BASE))
    # The slim base of production has less than 150 MB; that of these tests holds what makes Debian packages too.
    assert size - base < 190_000_000
    facts = podman("image", "inspect", "--format", "{{.Labels}} {{.User}} {{.Config.Healthcheck}}", scoring_image)
    for part in (
        "org.opencontainers.image.version:1.2.3",
        f"org.opencontainers.image.revision:{revision()}",
        "org.opencontainers.image.source:https://example.org/ahc",
        "10001",
        "infra.azure.inside_container.health",
    ):
        assert part in facts


def test_the_image_holds_nothing_of_training_or_orchestration(scoring_image):
    heavy = ("torch", "prefect", "pandas", "mlflow", "onnx", "sympy", "pip", "azure.ai", "azure.mgmt")
    code = (
        "from importlib.util import find_spec\n"
        "def there(name):\n"
        "    try: return find_spec(name) is not None\n"
        "    except ModuleNotFoundError: return False\n"
        f"print([name for name in {heavy} if there(name)])"
    )
    found = podman("run", "--rm", "--health-interval", "disable", "--entrypoint", "python", scoring_image, "-c", code)
    assert found == "[]"


def test_it_is_healthy_writes_nowhere_and_tells_no_key(scoring_container):
    running, settings, _ = scoring_container
    assert subprocess.run(["podman", "healthcheck", "run", running.name], env=environment()).returncode == 0
    assert podman("exec", running.name, "id", "-u") == "10001"
    assert podman("exec", running.name, "sh", "-c", "touch /opt/scoring/x /x /home/x 2>/dev/null || echo no") == "no"
    for which in ("primary", "secondary"):
        secret = key(settings, which).get_secret_value()
        assert secret not in running.log()
        assert secret not in podman("inspect", running.name)


def test_told_to_end_it_drains_and_ends(scoring_image, cloud, config, on_the_bench):
    with start(scoring_image, config, on_the_bench) as running:
        running.ready(120)
        with running.client(key(cloud)) as client:
            assert client.get("/model").status_code == 200
        running.signal(signal.SIGTERM)
        assert running.exit_code(30) == 0


def test_rotated_keys_take_effect_without_losing_a_request(scoring_image, cloud, config, on_the_bench):
    secrets = KeyVaultSecrets("test", cloud)
    old, dropped, fresh = key(cloud), key(cloud, "secondary"), SecretStr("a-fresh-key")
    with start(scoring_image, config, on_the_bench) as running:
        running.ready(120)
        with Load(config.port, old.get_secret_value()) as load:
            secrets.put(endpoint_key("test", "secondary"), old)
            secrets.put(endpoint_key("test"), fresh)
            eventually(lambda: running.accepts(fresh), 60)
        assert not running.accepts(dropped)
    assert load.failures == []
    assert load.answers > 20


def test_a_damaged_bundle_and_a_wrong_variable_end_it_with_their_codes(
    scoring_image, cloud, config, tmp_path, on_the_bench
):
    damaged = published(cloud, tmp_path / "other", damage=lambda folder: (folder / "labels.json").write_text("[]"))
    with start(scoring_image, damaged.model_copy(update={"port": config.port}), on_the_bench) as running:
        assert running.exit_code(60) == 16
        assert running.told("BundleCorrupt")["next_step"]
    with start(scoring_image, config, on_the_bench, AHC_CONTAINER_PORT="many") as running:
        assert running.exit_code(60) == 20
        assert "AHC_CONTAINER_PORT" in running.told("ConfigurationError")["message"]


def test_with_a_certificate_it_speaks_https_and_is_healthy(scoring_image, cloud, config, tmp_path, on_the_bench):
    trustme = pytest.importorskip("trustme")
    authority, trusting = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trusting)
    pem = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes().decode()
    KeyVaultSecrets("test", cloud).put("tls", SecretStr(pem))
    variables, options = on_the_bench
    told = {**variables, **config.model_copy(update={"certificate": "tls"}).variables()}
    with container(scoring_image, config.port, told, *options, scheme="https", verify=trusting) as running:
        running.ready(120)
        assert running.accepts(key(cloud))
        assert subprocess.run(["podman", "healthcheck", "run", running.name], env=environment()).returncode == 0
