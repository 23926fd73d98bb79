"""What is in the way of a release on one machine is found before anything is created."""

import socket
import sys

from infra.local import machine_checks as checks
from infra.local.endpoint import endpoint
from tests.support.bundles import make_bundle
from tests.support.local_endpoint import KeptSecrets, local_endpoint, make_endpoint


def test_nothing_is_in_the_way_on_this_machine_before_and_after_a_first_release(tmp_path):
    with local_endpoint(tmp_path / "home") as (subject, _):
        assert subject.preflight() == []
        reference = make_bundle(tmp_path / "v1")
        model = endpoint.LiveModel(name="colours", version=1, digest=reference.digest)
        subject.switch(subject.deploy(tmp_path / "v1", model))
        # Its port is in use now, by itself.
        assert subject.preflight() == []


def test_everything_that_is_in_the_way_is_told_at_once_with_its_fix(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        subject = make_endpoint(tmp_path / "home", KeptSecrets(), port)
        monkeypatch.setattr(checks, "DISK_BLOCKS", sys.maxsize)
        monkeypatch.setattr(checks, "DISK_WARNS", sys.maxsize)
        monkeypatch.setattr(endpoint, "VERSION_MEMORY", 2**60)
        disk, memory, used = subject.preflight()
    assert "Free some space" in disk
    assert "Close other programs." in memory
    assert f"{port} is used by" in used
    assert "AHC_ENDPOINT_BASE_PORT" in used
