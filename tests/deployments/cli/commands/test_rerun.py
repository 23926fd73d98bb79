import asyncio
import json
from pathlib import Path

import pytest
from prefect.states import Completed, Failed, Paused, Running

from deployments.cli.main import run as ahc
from deployments.runs.rerun import schedule
from deployments.server.connection import connect
from infra.errors import ConfigurationError

pytestmark = pytest.mark.thorough


def times(folder: Path, step: str) -> int:
    return len((folder / step).read_text())


def test_a_rerun_repeats_only_what_failed_and_ends_with_the_runs_exit_code(start, tmp_path, capsys):
    failed = start("intake", folder=str(tmp_path), name="herbs")
    assert failed.state_name == "DataRejected"

    assert ahc(["rerun", failed.name, "--wait"]) == 10  # nothing was repaired yet
    assert "truncated" in capsys.readouterr().out

    (tmp_path / "repaired").touch()
    assert ahc(["rerun", str(failed.id)[:8], "--wait", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["run"] == str(failed.id)
    assert told["kept_steps"] == 1
    assert times(tmp_path, "listed") == 1
    assert times(tmp_path, "validated") == 3


def test_a_run_of_this_process_is_rerun_in_this_process(platform, tmp_path, capsys, monkeypatch):
    from deployments.cli import flow_catalogue as catalogue
    from tests.support.operations_flows import intake

    monkeypatch.setattr(catalogue, "entrypoints", lambda: {"intake": "tests.support.operations_flows.intake"})
    first = intake(folder=str(tmp_path), name="here", return_state=True)
    (tmp_path / "repaired").touch()

    assert ahc(["rerun", str(first.state_details.flow_run_id)]) == 0

    assert "in this process" in capsys.readouterr().out
    assert times(tmp_path, "listed") == 1
    assert times(tmp_path, "validated") == 2


def test_of_several_who_rerun_one_run_at_once_one_does(ended, platform):
    failed = ended(Failed(name="AwaitingNobody"))

    async def at_once():
        async with connect(platform) as client:
            outcomes = await asyncio.gather(*(schedule(client, failed.id) for _ in range(4)), return_exceptions=True)
            return outcomes, await client.read_flow_run_states(failed.id)

    outcomes, states = asyncio.run(at_once())
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert [type(error) for error in refused] == [ConfigurationError] * 3
    assert all("has not ended yet" in str(error) for error in refused)
    assert [state.name for state in states].count("AwaitingRetry") == 1


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [
        (Completed(), 20, "only failed, crashed and cancelled runs are rerun"),
        (Running(), 20, "it has not ended yet"),
        (Paused(), 20, "ahc approve"),
        (Failed(name="ReleaseRejected", message="Jansen said no."), 31, "ahc trigger release/"),
        (Failed(message="The flow was paused and never resumed."), 31, "nobody decided in time"),
    ],
)
def test_a_run_that_a_rerun_cannot_help_is_refused_with_what_to_do_instead(ended, state, code, words, capsys):
    assert ahc(["rerun", str(ended(state).id)]) == code
    assert words in capsys.readouterr().err
