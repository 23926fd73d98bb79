"""The scoring container's program, as a process, against the bench's vault and blobs."""

import json
import signal
import socket
import ssl
import threading
import time

import pytest
from cryptography import x509
from pydantic import SecretStr

from infra.azure.access.resources import environment_resources
from infra.azure.storage.blobs import blob_service
from infra.azure.storage.key_vault import KeyVaultSecrets
from infra.config.environments import endpoint_key, load_environment
from model.errors import InvalidConfig
from tests.conftest import free_ports
from tests.support.azure.scoring_containers import key, program, published
from tests.support.bundles import colour_image
from tests.support.load import Load
from tests.support.local_endpoint import eventually

trustme = pytest.importorskip("trustme")
pytestmark = pytest.mark.azure
RECORDS = "https://stahctest.blob.core.windows.net/records"


@pytest.fixture
def config(cloud, tmp_path):
    return published(cloud, tmp_path / "bundle").model_copy(update={"port": free_ports(1)[0]})


def test_it_serves_the_published_bundle_with_both_keys_of_the_vault(bench, cloud, config, tmp_path):
    with program(config, tmp_path / "run") as container:
        container.ready()
        with container.client(key(cloud)) as client:
            answer = client.post("/score", content=colour_image("red"), headers={"Content-Type": "image/png"}).json()
        assert answer["predictions"][0]["label"] == "red"
        assert answer["model"] == {"name": "colours", "version": 7, "digest": config.model_digest}
        assert container.accepts(key(cloud, "secondary"))
        assert not container.accepts(SecretStr("another"))
        assert key(cloud).get_secret_value() not in container.log()


def test_told_to_end_it_answers_what_was_begun_and_ends_without_fault(bench, cloud, config, tmp_path):
    with program(config, tmp_path / "run") as container:
        container.ready()
        with Load(config.port, key(cloud).get_secret_value()) as load:
            time.sleep(0.5)
        with container.client(key(cloud)) as client:

            def slowly():
                body = colour_image("red")
                yield body[:50]
                time.sleep(1)
                yield body[50:]

            def score():
                answers.append(client.post("/score", content=slowly(), headers={"Content-Type": "image/png"}))

            answers = []
            thread = threading.Thread(target=score)
            thread.start()
            time.sleep(0.3)
            container.signal(signal.SIGTERM)
            thread.join(10)
        assert [answer.status_code for answer in answers] == [200]
        assert container.exit_code(10) == 0
    assert load.failures == []


def test_told_to_end_before_it_serves_it_ends_at_once(bench, config, tmp_path):
    bench.fault("outage", host="vault.azure.net")
    with program(config, tmp_path / "run") as container:
        eventually(lambda: "Trying again" in container.log(), 30)
        container.signal(signal.SIGTERM)
        assert container.exit_code(5) == 0


def test_a_short_outage_of_storage_and_vault_is_waited_out(bench, cloud, config, tmp_path):
    bench.fault(host="vault.azure.net", status=503, times=6)
    bench.fault(host="blob.core.windows.net", reset=True)
    with program(config, tmp_path / "run") as container:
        container.ready()
        assert container.accepts(key(cloud))


def test_a_damaged_bundle_ends_it_with_the_bundles_own_code(cloud, tmp_path):
    config = published(cloud, tmp_path / "bundle", damage=lambda folder: (folder / "labels.json").write_text("[]"))
    with program(config, tmp_path / "run") as container:
        assert container.exit_code(60) == 16
        assert container.told("BundleCorrupt")["next_step"]


def test_a_wrong_variable_is_named(config, tmp_path):
    with program(config, tmp_path / "run", AHC_CONTAINER_PORT="many", AHC_CONTAINER_BUNDLE_URL="") as container:
        assert container.exit_code(20) == 20
        line = container.told("ConfigurationError")
        assert line["exit_code"] == 20
        assert line["next_step"]
        for name in ("AHC_CONTAINER_PORT", "AHC_CONTAINER_BUNDLE_URL"):
            assert name in line["message"]


def test_a_missing_bundle_and_a_missing_role_are_not_tried_again(bench, config, tmp_path):
    gone = config.model_copy(update={"bundle_url": config.bundle_url + "x"})
    with program(gone, tmp_path / "gone") as container:
        assert container.exit_code(20) == 27
    bench.fault("forbidden", host="vault.azure.net", times=-1)
    with program(config, tmp_path / "forbidden") as container:
        assert container.exit_code(20) == 30
        assert "az role assignment create" in container.told("AccessDenied")["next_step"]


def test_a_killed_scoring_process_ends_the_container_with_its_signal(cloud, config, tmp_path):
    import psutil

    with program(config, tmp_path / "run") as container:
        container.ready()
        [child] = psutil.Process(container.process.pid).children()
        child.kill()
        assert container.exit_code(10) == 128 + signal.SIGKILL


def test_rotated_keys_take_effect_without_losing_a_request(bench, cloud, config, tmp_path):
    secrets = KeyVaultSecrets("test", cloud)
    old, dropped = key(cloud), key(cloud, "secondary")
    with program(config, tmp_path / "run") as container:
        container.ready()
        with Load(config.port, old.get_secret_value()) as load:
            secrets.put(endpoint_key("test", "secondary"), old)
            secrets.put(endpoint_key("test"), SecretStr("a-fresh-key"))
            container.signal(signal.SIGHUP)
            eventually(lambda: container.accepts(SecretStr("a-fresh-key")))
        assert load.failures == []
        assert load.answers > 20
        assert not container.accepts(dropped)


def test_while_the_vault_is_out_of_reach_the_keys_of_before_stay_valid(bench, cloud, config, tmp_path):
    with program(config, tmp_path / "run") as container:
        container.ready()
        secret = key(cloud)
        bench.fault("outage", host="vault.azure.net")
        container.signal(signal.SIGHUP)
        eventually(lambda: "stays valid" in container.log(), 30)
        assert container.accepts(secret)
        bench.clear_faults()
        container.signal(signal.SIGHUP)
        eventually(lambda: "can be read again" in container.log(), 30)


class Authority:
    """A certificate authority and the environment's vault."""

    def __init__(self, secrets):
        self._secrets = secrets
        self._ca = trustme.CA()
        self.trusting = ssl.create_default_context()
        self._ca.configure_trust(self.trusting)

    def issue(self):
        return self._ca.issue_cert("127.0.0.1")

    def put(self, certificate, key):
        """Into the vault: the certificate of one and the private key of the same or another; answers the serial."""
        chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
        self.put_text((key.private_key_pem.bytes() + chain).decode())
        return x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes()).serial_number

    def put_text(self, text):
        self._secrets.put("scoring-tls", SecretStr(text))

    def renew(self):
        issued = self.issue()
        return self.put(issued, issued)

    def shown(self, port):
        """The serial of the certificate that a new connection is shown."""
        plain = socket.create_connection(("127.0.0.1", port), timeout=20)
        with self.trusting.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            return int(connection.getpeercert()["serialNumber"], 16)


@pytest.fixture
def authority(cloud):
    return Authority(KeyVaultSecrets("test", cloud))


def test_a_renewed_certificate_is_shown_to_new_connections_and_no_request_is_lost(cloud, config, tmp_path, authority):
    first = authority.renew()
    told = config.model_copy(update={"certificate": "scoring-tls"})
    with program(told, tmp_path / "run", trusting=authority.trusting) as container:
        container.ready()
        assert authority.shown(config.port) == first
        with Load(config.port, key(cloud).get_secret_value(), tls=authority.trusting) as load:
            renewed = authority.renew()
            container.signal(signal.SIGHUP)
            eventually(lambda: authority.shown(config.port) == renewed, 60)
            authority.put_text("broken")
            container.signal(signal.SIGHUP)
            eventually(lambda: container.log().count("can't be used") == 1, 60)
            authority.put(certificate=authority.issue(), key=authority.issue())
            container.signal(signal.SIGHUP)
            eventually(lambda: container.log().count("can't be used") == 2, 60)
            assert authority.shown(config.port) == renewed
            last = authority.renew()
            container.signal(signal.SIGHUP)
            eventually(lambda: authority.shown(config.port) == last, 60)
        assert load.failures == []
        assert load.answers > 20
        assert "PRIVATE KEY" not in container.log()
        [file] = (tmp_path / "run").rglob("tls.pem")
        assert file.stat().st_mode & 0o777 == 0o600


def test_a_certificate_that_can_not_be_used_or_is_missing_ends_it_with_its_code(cloud, config, tmp_path, authority):
    told = config.model_copy(update={"certificate": "scoring-tls"})
    with program(told, tmp_path / "missing") as container:
        assert container.exit_code(30) == 30
        assert "scoring-tls" in container.told("AccessDenied")["message"]
    authority.put_text("broken")
    with program(told, tmp_path / "broken") as container:
        assert container.exit_code(30) == InvalidConfig.exit_code
        assert container.told("InvalidConfig")["next_step"]


def test_keys_are_rotated_while_the_certificate_can_not_be_read(bench, cloud, config, tmp_path, authority):
    authority.renew()
    told = config.model_copy(update={"certificate": "scoring-tls"})
    with program(told, tmp_path / "run", trusting=authority.trusting) as container:
        container.ready()
        bench.fault("outage", host="vault.azure.net", path="secrets/scoring-tls", times=-1)
        KeyVaultSecrets("test", cloud).put(endpoint_key("test"), SecretStr("a-fresh-key"))
        container.signal(signal.SIGHUP)
        eventually(lambda: container.accepts(SecretStr("a-fresh-key")), 60)


def test_sampled_records_of_its_requests_are_in_the_store_when_it_has_ended(cloud, config, tmp_path):
    sampling = {"sample_rate": 1.0, "records_url": RECORDS, "correlation_id": "build-42"}
    with program(config.model_copy(update=sampling), tmp_path / "run") as container:
        container.ready()
        with container.client(key(cloud)) as client:
            answer = client.post("/score", content=colour_image("red"), headers={"Content-Type": "image/png"}).json()
        container.signal(signal.SIGTERM)
        assert container.exit_code(15) == 0
    store = blob_service("stahctest").get_container_client("records")
    [segment] = [blob.name for blob in store.list_blobs("incoming/")]
    [record] = [json.loads(line) for line in store.download_blob(segment).readall().splitlines()]
    assert (record["request_id"], record["environment"]) == (answer["request_id"], "test")
    assert record["correlation_id"] == "build-42"


def test_its_requests_are_traced_into_application_insights(bench, cloud, config, tmp_path):
    environment = load_environment("test", cloud.environments)
    sink = environment_resources(environment, cloud).application_insights_connection_string
    traced = config.model_copy(update={"telemetry": SecretStr(sink), "correlation_id": "build-42"})
    with program(traced, tmp_path / "run") as container:
        container.ready()
        with container.client(key(cloud)) as client:
            client.post("/score", content=colour_image("red"), headers={"Content-Type": "image/png"})
        container.signal(signal.SIGTERM)
        assert container.exit_code(15) == 0
    assert "build-42" in json.dumps(bench.telemetry())
