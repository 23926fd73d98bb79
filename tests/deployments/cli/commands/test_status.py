import json
from datetime import datetime

import pytest
from prefect.states import Failed

from deployments.cli.commands.status import problem
from deployments.cli.main import run as ahc
from deployments.runs.queries import RunFacts
from infra.backend import backend, release_target
from infra.ports import LiveModel
from infra.releases.record_agreement import REPAIR
from tests.support.bundles import make_bundle


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


@pytest.fixture
def released(home, tmp_path):
    """`test` serves a version that ledger and registry tell of, released a while ago."""
    folder = tmp_path / "bundle"
    bundle = make_bundle(folder)
    target, models = release_target("test", home).endpoint(), backend(home).registry()
    model = models.register(folder, name=bundle.name, digest=bundle.digest, tags={"verdict": "promote"}, metrics={})
    live = LiveModel(name=model.name, version=model.version, digest=model.digest)
    try:
        target.switch(target.deploy(folder, live))
        models.set_champion(model, "test")
        models.tag(model, {"released.test": "2026-01-02 03:04:05 UTC"})
        backend(home).ledger().append("test", "switched", live, by="ann", run="run")
        yield live
    finally:
        target.stop()


def test_where_all_agree_nothing_differs_and_the_ledger_knows_since_when(home, released, capsys):
    backend(home).ledger().append("test", "settled", released, by="watch", run="run")
    told = status(capsys)["environments"][0]
    assert told["differences"] == []
    [switched, _] = backend(home).ledger().events("test")
    assert told["last_event"] == switched.model_dump(mode="json")
    assert datetime.fromisoformat(told["released"]) == switched.at

    assert ahc(["status"]) == 0
    assert "The endpoint is right" not in capsys.readouterr().out


def test_a_ledger_that_says_something_else_is_told_with_the_command_that_corrects_it(home, released, capsys):
    other = LiveModel(name=released.name, version=7, digest="7" * 64)
    backend(home).ledger().append("test", "switched", other, by="eve", run="run")
    told = status(capsys)["environments"][0]
    [line] = told["differences"]
    assert "ledger says that it runs colours v7 (777777777777)" in line
    assert told["released"] == "2026-01-02T03:04:05Z"  # of what is live, as the registry knows

    assert ahc(["status"]) == 0
    assert f"  test: {line}" in capsys.readouterr().out
    assert REPAIR in line


def test_a_registry_that_says_something_else_is_told_and_nothing_of_it_is_taken_for_true(
    home, released, tmp_path, capsys
):
    bundle = make_bundle(tmp_path / "another", bias=0.1)
    models = backend(home).registry()
    another = models.register(tmp_path / "another", name=bundle.name, digest=bundle.digest, tags={}, metrics={})
    models.set_champion(another, "test")
    models.tag(another, {"released.test": "2026-01-02 03:04:05 UTC"})
    told = status(capsys)["environments"][0]
    [line] = told["differences"]
    assert "registry names as champion colours v2" in line
    assert datetime.fromisoformat(told["released"]) == backend(home).ledger().events("test")[0].at

    backend(home).ledger().append("test", "repaired", released, by="reconciliation", run="run")
    assert status(capsys)["environments"][0]["released"] is None


def test_a_broken_ledger_is_told_and_the_rest_is_shown(home, released, capsys):
    path = home.home / "ledger" / "test" / "00000001.json"
    path.write_text(path.read_text().replace("ann", "eve"))
    told = status(capsys)["environments"][0]
    assert told["endpoint"]["live"] == released.model_dump()
    assert "00000001.json was edited" in told["ledger_problem"]
    assert (told["last_event"], told["differences"]) == (None, [])

    assert ahc(["status"]) == 0
    shown = capsys.readouterr().out
    assert "00000001.json was edited" in shown
    assert "ahc ledger test" in shown
