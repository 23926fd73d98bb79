import json

import pytest
from prefect.states import Failed

from deployments.cli import run as ahc
from deployments.commands.status import problem
from deployments.runs import RunFacts


def status(capsys, *arguments):
    assert ahc(["status", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_without_a_server_the_environments_are_shown_in_release_order(home, capsys):
    told = status(capsys)
    names = [item["endpoint"]["environment"] for item in told["environments"]]
    assert names == ["test", "acceptance", "production"]
    assert {item["endpoint"]["state"] for item in told["environments"]} == {"stopped"}
    assert told["runs"] == []
    assert "No Prefect server answers" in told["server"]

    assert ahc(["status"]) == 0
    shown = capsys.readouterr().out
    assert "production" in shown
    assert "ahc up" in shown


def test_recent_runs_are_shown_with_their_problem_and_the_command_that_explains_it(ended, capsys):
    failed = ended(Failed(name="DataRejected", message="broken.jpg is truncated."))
    told = status(capsys)
    assert told["server"] == "running"
    assert told["runs"][0] | {"name": failed.name, "state_name": "DataRejected"} == told["runs"][0]

    assert ahc(["status", "--runs", "1"]) == 0
    shown = capsys.readouterr().out
    assert "broken.jpg" in shown
    assert f"ahc why {str(failed.id)[:8]}" in shown


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (("PAUSED", "Suspended"), "ahc approve 12345678"),
        (("SCHEDULED", "Late"), "no worker"),
        (("CRASHED", "Crashed"), "ahc why 12345678"),
        (("FAILED", "DiskFull"), "docs/runbook.md#disk-full"),
        (("COMPLETED", "NotPromoted"), ""),
        (("RUNNING", "Running"), ""),
    ],
)
def test_each_kind_of_run_says_what_it_needs_of_a_person(state, words):
    nothing = dict.fromkeys(("created", "started", "ended"))
    kind, name = state
    run = RunFacts(
        id="12345678-0000",
        name="x",
        flow="x",
        state_type=kind,
        state_name=name,
        message="!",
        seconds=1,
        url="",
        **nothing,
    )
    line = problem(run)
    assert words in line
    assert bool(words) == bool(line)
