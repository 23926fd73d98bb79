"""Killed at any moment, the platform goes on where it was."""

import importlib
import json
import time

import pytest

from model.errors import CheckpointCorrupt
from model.training.checkpoints import read_checkpoint
from tests.e2e.conftest import PATIENCE, QUICK

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(2400)]
LONGER = (*QUICK, "-p", "training.epochs=15", "-p", "training.early_stopping_patience=0")


def resumed_from(machine):
    (result,) = (machine.home / "training").glob("*/result.json")
    return json.loads(result.read_text())["resumed_from_epoch"]


def epoch(machine):
    """The last epoch that a checkpoint holds; None before the first."""
    try:
        (path,) = (machine.home / "training").glob("*/last.ckpt")
        return read_checkpoint(path).progress.epoch
    except (CheckpointCorrupt, ValueError):  # not written yet, or being replaced
        return None


def wait_for_epoch(machine, started, after):
    """Wait for an epoch beyond `after`; what was reached before may not be lost on the way."""
    deadline = time.monotonic() + PATIENCE
    while (now := epoch(machine)) is None or now <= after:
        assert now is None or now >= after - 1, "training began anew"
        assert started.process.poll() is None, started.output
        assert time.monotonic() < deadline, started.output
        time.sleep(0.2)
    return now


def test_a_killed_flow_process_goes_on_by_itself_and_a_power_loss_costs_at_most_one_epoch(machine, pictures):
    """One story, since each lifecycle costs minutes."""
    importlib.import_module("torch")  # reads checkpoints, and may take longer to load than the training takes
    first = machine.start("up", "--once", "--data", str(pictures), *LONGER)
    reached = wait_for_epoch(machine, first, 0)
    engines = [process for process in machine.processes() if "prefect.engine" in " ".join(process.cmdline())]
    assert engines
    for process in engines:
        process.kill()

    reached = wait_for_epoch(machine, first, reached)
    machine.kill_everything()
    first.end(30)

    done = machine.ahc("up", "--once", "--data", str(pictures), *LONGER, code=None)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert resumed_from(machine) >= reached - 1


def test_killed_at_any_moment_the_lifecycle_ends_as_if_nothing_had_been(machine, pictures):
    for seconds in (0.5, 2, 4, 7, 11):
        started = machine.start("up", "--once", "--data", str(pictures), *QUICK)
        started.wait_for("/v2/runs/flow-run/")
        time.sleep(seconds)
        machine.kill_everything()
        started.end(30)
    done = machine.ahc("up", "--once", "--data", str(pictures), *QUICK)
    assert f"{pictures.name} v1: " in done.stdout
    assert [path.name for path in (machine.home / "training").iterdir()] != []
    assert len(list((machine.home / "registry" / pictures.name).glob("[0-9a-f]*"))) == 1
    assert [process.cmdline() for process in machine.processes()] == []
