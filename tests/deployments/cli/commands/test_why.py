import json
import sqlite3
import time
import uuid
from contextlib import closing

import pytest
from prefect.client.schemas.actions import ArtifactCreate
from prefect.states import Completed, Failed

from deployments.cli.main import run as ahc
from deployments.server.connection import server
from infra.runs.faults import CARD, FAULT
from model.errors import DataRejected
from model.faults import Fault


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("intake"))


@pytest.fixture(scope="module")
def _failed():
    return {}


@pytest.fixture
def failed(_failed, folder, start):
    """One failed run for all tests of this module."""
    if not _failed:
        _failed["run"] = start("intake", folder=folder, name="food")
    return _failed["run"]


@pytest.fixture
def attached(platform):
    """Makes an artifact of a run."""

    def attach(run, key, kind, data):
        with server(platform) as client:
            client.create_artifact(ArtifactCreate(key=key, type=kind, data=data, flow_run_id=run.id))

    return attach


def why(capsys, *arguments):
    assert ahc(["why", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_cause_is_told_in_the_errors_own_words_with_where_and_what_to_do(failed, folder, capsys):
    told = why(capsys, str(failed.id))
    assert told["cause"] == f"broken.jpg in {folder} is truncated."
    assert told["where"] == ["inspection", "validate the manifest"]
    assert "correct or remove the named files" in told["next_step"]
    assert told["command"] == f"ahc rerun {failed.id}"
    assert told["runbook"] == "docs/runbook.md#data-rejected"
    assert told["exit_code"] == 10
    assert told["finished_steps"] == 1
    assert any(f"listing the images of {folder}" in line for line in told["log"])


def test_what_is_told_is_the_record_that_the_failed_step_left(failed, folder, capsys):
    fault = Fault.model_validate(why(capsys, str(failed.id))["fault"])
    assert (fault.name, fault.exit_code) == ("DataRejected", 10)
    assert fault.message == f"broken.jpg in {folder} is truncated."
    assert fault.where
    assert isinstance(fault.error(), DataRejected)


def test_a_run_is_found_by_id_by_the_start_of_its_id_and_by_name(failed, capsys):
    for wanted in (str(failed.id), str(failed.id)[:8], failed.name, "ke of food"):
        assert why(capsys, wanted)["run"]["id"] == str(failed.id)


def test_a_subflow_is_explained_by_the_run_that_started_it(failed, capsys):
    assert why(capsys, "inspection")["run"]["id"] == str(failed.id)


def test_without_a_run_the_last_failed_one_is_explained(failed, capsys):
    assert ahc(["why"]) == 0
    text = capsys.readouterr().out
    assert "intake of food" in text
    assert f"  ahc rerun {failed.id}" in text.splitlines()


def test_an_unknown_run_is_an_error_that_proposes_a_known_one(failed, capsys):
    assert ahc(["why", "intake of foood"]) == 32
    assert "did you mean `intake of food`?" in capsys.readouterr().err


def test_a_killed_run_is_told_as_killed(start, capsys):
    run = start("killed")
    told = why(capsys, str(run.id))
    while told["run"]["state_type"] != "CRASHED":  # where `ahc deploy` made the automation that continues crashed runs
        time.sleep(0.5)
        told = why(capsys, str(run.id))
    assert told["exit_code"] == 41
    assert "memory" in told["cause"] + told["next_step"]
    assert told["command"] == f"ahc rerun {run.id}"


def test_a_model_that_was_not_promoted_is_not_told_as_a_failure(ended, capsys):
    run = ended(Completed(name="NotPromoted", message="fish recall 0.71 is below the champion's 0.80"))
    told = why(capsys, str(run.id))
    assert told["cause"].startswith("Nothing failed.")
    assert "fish recall" in told["cause"]
    assert told["command"] is None
    assert told["exit_code"] == 3


def test_without_a_server_the_error_says_how_to_start_one(home, capsys):
    assert ahc(["why"]) == 22
    assert "ahc up" in capsys.readouterr().err


def copy_run(prefect_server, run_id, count):
    """So many newer runs like this one, as rows of the server's database: by its API they would take minutes."""
    with closing(sqlite3.connect(prefect_server.home / "prefect" / "prefect.db", timeout=60)) as connection:
        connection.row_factory = sqlite3.Row
        # Without the generated columns.
        names = [row["name"] for row in connection.execute("PRAGMA table_xinfo(flow_run)") if not row["hidden"]]
        row = dict(connection.execute("SELECT * FROM flow_run WHERE id = ?", [run_id]).fetchone())
        later = {"expected_start_time": "2100-01-01 00:00:00.000000", "state_id": None, "idempotency_key": None}
        rows = [{**row, **later, "id": str(uuid.uuid4()), "name": f"copy-{number}"} for number in range(count)]
        marks = ", ".join(f":{name}" for name in names)
        connection.executemany(f"INSERT INTO flow_run ({', '.join(names)}) VALUES ({marks})", rows)
        connection.commit()
        return [item["id"] for item in rows]


def test_a_run_among_the_oldest_of_five_thousand_is_found_by_the_start_of_its_id(failed, prefect_server, capsys):
    copies = copy_run(prefect_server, str(failed.id), 5000)
    try:
        assert why(capsys, str(failed.id)[:13])["run"]["id"] == str(failed.id)
    finally:
        with closing(sqlite3.connect(prefect_server.home / "prefect" / "prefect.db", timeout=60)) as connection:
            connection.executemany("DELETE FROM flow_run WHERE id = ?", [[copy] for copy in copies])
            connection.commit()


def test_a_record_is_believed_whatever_the_card_says(ended, attached, capsys):
    run = ended(Failed(name="DataRejected", message="Of the state."))
    fault = Fault.of(DataRejected("Of the record.", next_step="Do it."), where="Validate")
    attached(run, FAULT, "table", [fault.model_dump(mode="json")])
    attached(run, CARD, "markdown", "**What happened.** Of the card.\n\n**What to do.** Nothing.\n\n")
    told = why(capsys, str(run.id))
    assert (told["cause"], told["next_step"], told["card"]) == ("Of the record.", "Do it.", "")


def test_a_run_that_left_a_card_alone_is_shown_with_its_card(ended, attached, capsys):
    run = ended(Failed(name="DataRejected", message="Of the state."))
    card = "# Validate: DataRejected\n\n**What happened.** Of the card.\n\n**What to do.** Look at it.\n\n"
    attached(run, CARD, "markdown", card)
    told = why(capsys, str(run.id))
    assert (told["cause"], told["next_step"]) == ("Of the state.", DataRejected.next_step)
    assert (told["fault"], told["card"]) == (None, card)
    assert ahc(["why", str(run.id)]) == 0
    assert "What happened. Of the card." in capsys.readouterr().out
