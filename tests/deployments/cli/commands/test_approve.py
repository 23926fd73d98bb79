import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from deployments.cli.main import run as ahc
from deployments.runs.decisions import resume
from deployments.server.connection import server
from infra.backend import backend
from infra.errors import ConfigurationError
from infra.ports import RegisteredModel
from infra.settings import Settings, get_settings
from tasks.release.approval import note_expired
from tests.deployments.conftest import wait_for
from tests.support.bundles import make_bundle

pytestmark = pytest.mark.thorough

WHO = ["--by", "A. Jansen", "--reason", "checked on 200 photos"]


def test_an_approved_release_goes_on_with_who_and_why(start, platform, tmp_path, capsys):
    waiting = start("decided", folder=str(tmp_path), name=uuid4().hex)

    # Whatever is wrong with a decision, the release still waits.
    assert ahc(["approve"]) == 2
    listed = capsys.readouterr().out
    assert waiting.name in listed
    assert f"{waiting.state.state_details.pause_timeout.astimezone():%d %b %H:%M}" in listed
    assert ahc(["approve", "no such release", *WHO]) == 32
    assert f"Waiting: {waiting.name}" in capsys.readouterr().err
    assert ahc(["approve", str(waiting.id), "--by", "A. Jansen"]) == 20
    assert "--reason" in capsys.readouterr().err
    # The server answers 200 to this one.
    with server(platform) as client, pytest.raises(ConfigurationError, match="'by' is a required property"):
        resume(client, waiting, {"approved": True})
    with server(platform) as client, pytest.raises(ConfigurationError, match="does not match"):
        resume(client, waiting, {"approved": True, "by": "  ", "reason": "checked"})
    assert wait_for(platform, waiting.id).state.is_paused()

    assert ahc(["approve", str(waiting.id)[:8], *WHO, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decision"] == "approved"
    assert wait_for(platform, waiting.id).state_name == "Completed"
    assert (tmp_path / "decision").read_text() == "True A. Jansen: checked on 200 photos"
    assert (tmp_path / "listed").read_text() == "x"  # what came before the decision is not repeated


def test_a_rejected_release_ends_as_rejected_and_cannot_be_approved_any_more(start, platform, tmp_path, capsys):
    waiting = start("decided", folder=str(tmp_path), name=uuid4().hex)
    assert ahc(["reject", waiting.name, *WHO]) == 0
    assert wait_for(platform, waiting.id).state_name == "ReleaseRejected"
    assert (tmp_path / "decision").read_text().startswith("False A. Jansen")
    assert ahc(["approve", str(waiting.id), *WHO]) == 32
    assert "does not wait for a decision, it is ReleaseRejected" in capsys.readouterr().err


# --- by the rules of an environment file --------------------------------------------------------------------------


@pytest.fixture
def model(platform: Settings, tmp_path: Path) -> RegisteredModel:
    """A version that was released nowhere."""
    bundle = make_bundle(tmp_path / "bundle", code=uuid4().hex)
    tags = {"verdict": "promote"}
    return (
        backend(platform)
        .registry()
        .register(tmp_path / "bundle", name=bundle.name, digest=bundle.digest, tags=tags, metrics={})
    )


@pytest.fixture
def ask(start: Callable[..., Any], model: RegisteredModel, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts a release to `production`, with these gates in its file; answers its run when it waits."""

    def ask(by: str = "", **gates: Any) -> Any:
        described = {"name": "production", "description": "x", "port_offset": 3, "gates": {"approval": True, **gates}}
        (tmp_path / "production.yaml").write_text(yaml.safe_dump(described))
        os.environ["AHC_ENVIRONMENTS"] = str(tmp_path)
        get_settings.cache_clear()
        return start(
            "asked", name=model.name, version=model.version, environment="production", folder=str(tmp_path), by=by
        )

    before = os.environ["AHC_ENVIRONMENTS"]
    yield ask
    os.environ["AHC_ENVIRONMENTS"] = before
    get_settings.cache_clear()


def decision(by: str, reason: str = "checked") -> list[str]:
    return ["--by", by, "--reason", reason]


def told(platform: Settings, run: Any) -> list[tuple[str, str, str]]:
    """What the ledger of `production` says about a run."""
    events = backend(platform).ledger().events("production")
    return [(event.kind, event.by, event.reason) for event in events if event.run == str(run.id)]


def send(platform: Settings, run: Any, by: str, *, approved: bool = True) -> Any:
    """A decision as the form of the UI sends it, which no command checked; answers the run when it needs nobody."""
    with server(platform) as client:
        resume(client, run, {"approved": approved, "by": by, "reason": "checked"})
        paused = run.state.id
        deadline = time.monotonic() + 180
        while (now := client.read_flow_run(run.id)).state.id == paused or not (
            now.state.is_final() or now.state.is_paused()
        ):
            assert time.monotonic() < deadline, now.state
            time.sleep(0.1)
    return now


def test_only_who_is_named_decides_and_a_wrong_name_costs_nothing(ask, platform, model, tmp_path, capsys):
    waiting = ask(approvers=["A. Jansen", "B. de Wit"])
    assert ahc(["approve", str(waiting.id), *decision("carol")]) == 30
    said = capsys.readouterr().err
    assert "carol may not decide here; A. Jansen, B. de Wit may" in said
    assert ahc(["reject", str(waiting.id), *decision("carol")]) == 30

    # The form of the UI asks nobody: the run itself refuses, and asks again.
    again = send(platform, waiting, "carol")
    assert again.state.is_paused()
    again = send(platform, again, "dave", approved=False)
    assert again.state.is_paused()
    assert told(platform, waiting) == []

    ended = send(platform, again, " b. de  WIT ")
    assert ended.state_name == "Completed"
    assert told(platform, waiting) == [("approved", "b. de WIT", "checked")]
    assert (tmp_path / "released").read_text() == "x"
    recorded = backend(platform).registry().get(model.name, model.version).tags["decision.production"]
    assert recorded.startswith("approved by ")
    with server(platform) as client:
        shown = [artifact.key for artifact in client.read_artifacts() if artifact.flow_run_id == waiting.id]
    assert shown == ["approval"]  # once, however often it was asked


def test_who_started_a_release_may_not_approve_it_alone_but_take_it_back(ask, platform, capsys):
    waiting = ask(by="Jan Bos", four_eyes=True)
    assert ahc(["approve", str(waiting.id), *decision("jan bos")]) == 30
    assert "jan bos started this release, and another person decides" in capsys.readouterr().err
    again = send(platform, waiting, "JAN BOS")
    assert again.state.is_paused()
    assert ahc(["reject", str(waiting.id), *decision("Jan Bos", "a mistake")]) == 0
    assert wait_for(platform, waiting.id).state_name == "ReleaseRejected"
    assert told(platform, waiting) == [("rejected", "Jan Bos", "a mistake")]


def test_a_rerun_after_an_approval_asks_nobody_again(ask, platform, tmp_path):
    (tmp_path / "broken").touch()
    waiting = ask(approvers=["A. Jansen"])
    again = send(platform, waiting, "nobody")
    assert send(platform, again, "A. Jansen").state_name == "DataRejected"
    (tmp_path / "broken").unlink()
    assert ahc(["rerun", str(waiting.id), "--wait"]) == 0
    assert told(platform, waiting) == [("approved", "A. Jansen", "checked")]


def test_a_release_that_nobody_could_continue_does_not_wait(platform, model, tmp_path):
    from tests.support.operations_flows import asked

    (tmp_path / "production.yaml").write_text("{name: production, description: x, port_offset: 3}")
    state = asked(model.name, model.version, "production", str(tmp_path), return_state=True)
    assert state.name == "ConfigurationError"
    assert "ahc trigger release/production" in state.message


def test_a_waiting_release_holds_no_process(ask):
    waiting = ask()
    deadline = time.monotonic() + 60
    while waits := _processes_of(str(waiting.id)):
        assert time.monotonic() < deadline, waits
        time.sleep(0.2)


def _processes_of(run: str) -> list[str]:
    """Processes that were told to run this flow run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if run.encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


def test_a_release_that_nobody_decides_in_time_expires_and_says_so_everywhere(ask, platform, model, capsys):
    waiting = ask(approval_hours=0.0003)
    again = f"ahc trigger release/production -p name={model.name} -p version={model.version}"
    ended = _expire(platform, waiting)

    assert ahc(["why", str(waiting.id), "--json"]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert explained["cause"].startswith("Nobody decided on this release in time: it expired.")
    assert (explained["exit_code"], explained["command"]) == (31, again)
    assert explained["runbook"] == "docs/runbook.md#release-rejected"
    assert ahc(["status"]) == 0
    assert "Nobody decided on this release in time" in capsys.readouterr().out
    for command in (["approve", str(waiting.id), *WHO], ["rerun", str(waiting.id)]):
        assert ahc(command) == 31
        assert again in " ".join(capsys.readouterr().err.split())

    assert note_expired(ended)
    assert not note_expired(ended)
    assert told(platform, waiting) == [("expired", "the platform", "nobody decided within 0.0003 hours")]


def _expire(platform: Settings, run: Any) -> Any:
    """Prefect's service looks every few seconds."""
    deadline = time.monotonic() + 120
    with server(platform) as client:
        while (now := client.read_flow_run(run.id)).state.is_paused():
            assert time.monotonic() < deadline
            time.sleep(0.2)
    return now


def test_a_decision_that_comes_too_late_is_told_as_that(ask, platform, capsys):
    waiting = ask(approval_hours=0.0003)
    time.sleep(1.5)
    assert ahc(["approve", str(waiting.id), *WHO]) == 31
    assert "expired" in capsys.readouterr().err


def test_an_expired_release_that_is_set_going_in_the_ui_says_that_it_expired(ask, platform):
    from prefect.states import Scheduled

    waiting = ask(approval_hours=0.0003)
    _expire(platform, waiting)
    with server(platform) as client:
        client.set_flow_run_state(waiting.id, Scheduled(name="AwaitingRetry"), force=True)
    ended = wait_for(platform, waiting.id)
    assert ended.state_name == "ReleaseRejected"
    assert "expired: nobody decided within 0.0003 hours" in ended.state.message
    assert [kind for kind, _, _ in told(platform, waiting)] == ["expired"]


def test_an_approval_does_not_hold_for_ever(ask, platform, tmp_path, capsys):
    (tmp_path / "broken").touch()
    waiting = ask()
    assert send(platform, waiting, "A. Jansen").state_name == "DataRejected"
    (tmp_path / "broken").unlink()
    shorter = yaml.safe_load((tmp_path / "production.yaml").read_text())
    shorter["gates"]["approval_hours"] = 1e-6
    (tmp_path / "production.yaml").write_text(yaml.safe_dump(shorter))
    assert ahc(["rerun", str(waiting.id), "--wait"]) == 31
    assert "A. Jansen approved at" in wait_for(platform, waiting.id).state.message
    assert [kind for kind, _, _ in told(platform, waiting)] == ["approved", "expired"]
