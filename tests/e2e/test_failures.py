"""What blocks says what to correct; what was corrected goes on where it failed."""

import shutil

import pytest

from infra.settings import Settings
from tests.e2e.conftest import COLOURS, QUICK

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]
SHIPPED = Settings().environments


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


def test_a_folder_never_seen_before_goes_all_the_way_and_a_failed_step_is_rerun_without_the_others(
    machine, pictures, tmp_path
):
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
    reports = (machine.home / "reports").rglob("data-report.html")
    assert any("lime ✿" in report.read_text() for report in reports)
    started.interrupt()
