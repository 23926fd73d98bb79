"""A training whose machine goes goes on elsewhere, and two machines never make the same one at once."""

import os
import signal
import subprocess
import sys
import time

import pytest

from infra.backend import backend
from infra.errors import AccessDenied
from tasks.training.fit import TrainingState

pytestmark = pytest.mark.azure
HOST = r"blob\.core\.windows\.net"


@pytest.fixture
def machine(cloud, tmp_path):
    """Makes the state of one training as each of several machines has it."""

    def make(name):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        return directory, TrainingState(directory, f"{backend(cloud).data_root()}/training/key")

    return make


def test_another_machine_goes_on_from_what_was_kept(machine):
    here, state = machine("a")
    state.fetch()
    assert not list(here.iterdir())
    (here / "best.ckpt").write_bytes(b"best 1")
    (here / "last.ckpt").write_bytes(b"last 1")
    state.save()
    (here / "last.ckpt").write_bytes(b"last 2")
    state.save()
    there, state = machine("b")
    state.fetch()
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {
        "best.ckpt": b"best 1",
        "last.ckpt": b"last 2",
    }


def test_what_did_not_change_is_not_sent_again(machine, bench):
    here, state = machine("a")
    (here / "best.ckpt").write_bytes(b"best")
    (here / "last.ckpt").write_bytes(b"last")
    state.save()
    state.save()
    assert [call["method"] for call in bench.calls(url="training/key")].count("PUT") == 2


def test_a_machine_that_has_its_own_state_keeps_it(machine):
    here, state = machine("a")
    (here / "last.ckpt").write_bytes(b"old")
    state.save()
    there, state = machine("b")
    (there / "last.ckpt").write_bytes(b"own")
    state.fetch()
    assert (there / "last.ckpt").read_bytes() == b"own"


def test_a_store_that_refuses_is_told(machine, bench):
    here, state = machine("a")
    (here / "last.ckpt").write_bytes(b"x")
    bench.fault("forbidden", host=HOST, method="PUT")
    with pytest.raises(AccessDenied, match=r"last\.ckpt"):
        state.save()


def test_on_one_machine_there_is_nothing_to_copy(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"x")
    state = TrainingState(tmp_path, str(tmp_path))
    state.save()
    state.fetch()
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


HOLD = """
import sys, time
from pathlib import Path
from infra.backend import backend
from tests.support.azure.bench import azure_settings
with backend(azure_settings(Path(sys.argv[1]))).exclusive("training/key"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_of_two_processes_one_holds_a_name_and_a_killed_holder_lets_go(cloud, tmp_path, monkeypatch):
    monkeypatch.setattr("infra.azure.storage.leases.HOURS_LEASE_SECONDS", 15)
    script = HOLD.replace("with", "import infra.azure.storage.leases as l; l.HOURS_LEASE_SECONDS = 15\nwith", 1)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), "600"], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline().strip() == "held"
        os.kill(holder.pid, signal.SIGKILL)
    killed = time.monotonic()
    with backend(cloud).exclusive("training/key"):
        waited = time.monotonic() - killed
    assert 0.5 < waited < 60


def test_another_name_is_not_waited_for(cloud):
    with backend(cloud).exclusive("training/one"), backend(cloud).exclusive("training/two"):
        pass
