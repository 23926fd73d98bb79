"""Killed at any moment, the platform goes on where it was."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from infra.settings import Settings
from tests.e2e.conftest import PATIENCE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]
QUICK = ("-p", "training.epochs=3", "-p", "training.head_epochs=5", "-p", "training.preprocessing.size=64")
LONGER = (*QUICK, "-p", "training.epochs=15", "-p", "training.early_stopping_patience=0")
SHIPPED = Settings().environments
COLOURS = ("amber", "blue", "coral", "emerald", "fuchsia", "grey", "ivory", "lime ✿")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Eight classes of RGBA and palette PNGs of odd sizes, 18 to 40 each: nothing that the platform has ever seen."""
    random, root = np.random.default_rng(7), tmp_path_factory.mktemp("pictures")
    for at, label in enumerate(COLOURS):
        (root / label).mkdir()
        base = random.integers(0, 256, 3)
        for number in range(18 + 3 * at):
            width, height = random.integers(33, 140, 2)
            noise = random.integers(-35, 36, (height, width, 3))
            pixels = np.clip(base + noise, 0, 255).astype(np.uint8)
            alpha = np.full((height, width, 1), 255, np.uint8)
            alpha[: height // 5] = 0
            picture = Image.fromarray(np.concatenate([pixels, alpha], axis=2), "RGBA")
            picture = picture if number % 2 else picture.convert("P")
            picture.save(root / label / f"{number}.png")
    return root


def resumed_from(machine):
    (result,) = (machine.home / "training").glob("*/result.json")
    return json.loads(result.read_text())["resumed_from_epoch"]


def test_a_folder_never_seen_before_goes_all_the_way_without_a_code_change(machine, pictures):
    done = machine.ahc("up", "--once", "--data", str(pictures), *QUICK, code=None)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert "lime ✿" in (machine.home / "reports").rglob("data-report.html").__next__().read_text()


def in_the_middle_of_training(machine, started):
    """Wait for the second checkpoint, which pushes the first one aside."""
    deadline = time.monotonic() + PATIENCE
    while not list((machine.home / "training").glob("*/previous.ckpt")):
        assert started.process.poll() is None, started.output
        assert time.monotonic() < deadline, started.output
        time.sleep(0.05)


def test_a_power_loss_in_the_middle_of_training_costs_at_most_one_epoch(machine, pictures):
    first = machine.start("up", "--once", "--data", str(pictures), *LONGER)
    in_the_middle_of_training(machine, first)
    machine.kill_everything()
    first.end(30)
    done = machine.ahc("up", "--once", "--data", str(pictures), *LONGER, code=None)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert resumed_from(machine) >= 1


def test_a_killed_flow_process_goes_on_by_itself(machine, pictures):
    started = machine.start("up", "--once", "--data", str(pictures), *LONGER)
    in_the_middle_of_training(machine, started)
    engines = [process for process in machine.processes() if "prefect.engine" in " ".join(process.cmdline())]
    assert engines
    for process in engines:
        process.send_signal(signal.SIGKILL)
    assert started.end() in (0, 3), started.output
    assert resumed_from(machine) >= 1


def test_killed_at_any_moment_the_lifecycle_ends_as_if_nothing_had_been(machine, pictures):
    for seconds in (0.5, 1.5, 3, 5, 7, 9, 11, 13):
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


def test_data_that_blocks_ends_the_run_as_rejected_and_names_the_file(machine, pictures, tmp_path):
    root = tmp_path / "mixed"
    for label in COLOURS[:2]:
        (root / label).mkdir(parents=True)
        for path in sorted((pictures / label).glob("*.png")):
            (root / label / path.name).write_bytes(path.read_bytes())
    (root / "blue" / "twice.png").write_bytes((pictures / "amber" / "3.png").read_bytes())
    done = machine.ahc("up", "--once", "--data", str(root), *QUICK, code=10)
    assert "DataRejected" in done.stdout + done.stderr
    assert "twice.png" in done.stdout + done.stderr
    assert "docs/runbook.md#data-rejected" in done.stdout + done.stderr


def test_a_failed_step_is_rerun_without_repeating_the_others(machine, pictures, tmp_path):
    environments = tmp_path / "environments"
    shutil.copytree(SHIPPED, environments)
    acceptance = environments / "acceptance.yaml"
    acceptance.write_text(acceptance.read_text() + "  latency_p95_ms: 0.001\n")
    machine.environment["AHC_ENVIRONMENTS"] = str(environments)
    started = machine.start("up", "--data", str(pictures), *QUICK)
    started.wait_for("Everything stays up")
    assert "SmokeTestFailed" in started.output
    (failed,) = [run for run in machine.facts("status")["runs"] if run["flow"] == "lifecycle"]
    assert failed["state_name"] == "SmokeTestFailed"
    assert "latency" in machine.ahc("why", failed["id"]).stdout
    assert machine.endpoints()["acceptance"]["live"] is None
    trained = {path: path.stat().st_mtime_ns for path in (machine.home / "training").glob("*/best.ckpt")}
    shutil.copy(SHIPPED / "acceptance.yaml", acceptance)
    machine.ahc("rerun", failed["id"], "--wait")
    assert trained == {path: path.stat().st_mtime_ns for path in (machine.home / "training").glob("*/best.ckpt")}
    assert machine.endpoints()["acceptance"]["state"] == "running"
    started.interrupt()
