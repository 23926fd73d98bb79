"""The entry of a training job outside Prefect: what it prints, how it ends, and what it leaves for who waits."""

import json

import pytest

from deployments.entrypoints import training_job
from infra.settings import get_settings
from infra.stores.training_folder import Outcome, TrainingFolder
from infra.training import TrainingUpdate
from model.errors import GpuMemoryExhausted, SourceUnreadable
from model.faults import Fault
from tasks.training.fit import describe_job
from tests.support.training_case import short_training, small_data


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("AHC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AHC_BACKEND", "local")
    monkeypatch.setenv(training_job.ATTEMPT, "training-x-1")
    get_settings.cache_clear()
    yield tmp_path / "home"
    get_settings.cache_clear()


@pytest.fixture
def folder(home):
    (home / "training" / "training-x").mkdir(parents=True)
    return TrainingFolder(str(home / "training" / "training-x"))


def test_a_job_is_fitted_and_each_line_is_an_update(folder, tmp_path, capsys):
    data = small_data(tmp_path / "data")
    folder.hand_over(describe_job("training-x", data, short_training(head_epochs=1, epochs=1)))
    assert training_job.main(folder.job_url) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    updates = [TrainingUpdate.model_validate_json(line) for line in lines]
    [first, last] = [item for item in updates if item.saved and item.done is None]
    assert (first.epoch.epoch, last.epoch.epoch, last.epoch.epochs) == (0, 1, 1)
    assert last.sentence.startswith("Epoch 1 of 1: validation accuracy ")
    assert [item.done for item in updates if item.done is not None][-1] == 1
    assert folder.outcome() == Outcome(attempt="training-x-1")


def test_an_error_is_left_beside_the_job_and_its_code_is_the_exit_code(folder, tmp_path, capsys):
    data = small_data(tmp_path / "data")
    folder.hand_over(describe_job("training-x", data, short_training(epochs=1)))
    for image in (tmp_path / "data" / "source" / "red").iterdir():
        image.unlink()
    assert training_job.main(folder.job_url) == SourceUnreadable.exit_code
    outcome = folder.outcome()
    assert (outcome.attempt, outcome.exit_code) == ("training-x-1", SourceUnreadable.exit_code)
    assert isinstance(outcome.fault.error(), SourceUnreadable)
    assert outcome.fault.next_step
    assert "SourceUnreadable" in capsys.readouterr().err


def test_a_bug_ends_with_1_and_says_what_it_was(folder, home, capsys):
    (home / "training" / "training-x" / "job.json").write_text('{"key": "training-x", "data": {"name": "x"}}')
    assert training_job.main(folder.job_url) == 1
    assert folder.outcome().fault.name == "ValidationError"
    assert "Traceback" in capsys.readouterr().err


def test_the_first_process_of_an_attempt_that_failed_says_why(folder):
    folder.end(Outcome(attempt="a-1", fault=Fault.of(GpuMemoryExhausted("No memory."))))
    folder.end(Outcome(attempt="a-1", fault=Fault.of(RuntimeError("Another process is gone."))))
    assert folder.outcome().exit_code == 18
    folder.end(Outcome(attempt="a-2"))
    assert folder.outcome() == Outcome(attempt="a-2")


@pytest.mark.parametrize(
    ("code", "error"), [(18, GpuMemoryExhausted), (1, RuntimeError)], ids=["a known error", "a bug"]
)
def test_the_outcome_of_a_job_that_an_older_version_submitted_is_read(folder, home, code, error):
    file = home / "training" / "training-x" / "outcome.json"
    file.write_text(f'{{"attempt": "a-1", "exit_code": {code}, "message": "No memory.", "next_step": "Halve it."}}')
    outcome = folder.outcome()
    assert (outcome.attempt, outcome.exit_code) == ("a-1", code)
    assert isinstance(outcome.fault.error(), error)
    assert (outcome.fault.message, outcome.fault.next_step) == ("No memory.", "Halve it.")
    file.write_text('{"attempt": "a-1", "exit_code": 0, "message": "", "next_step": ""}')
    assert folder.outcome() == Outcome(attempt="a-1")


def test_the_log_of_a_long_training_is_not_flooded_with_progress():
    lines, now = [], [0.0]
    see = training_job.printed(lines.append, clock=lambda: now[0])
    for batch in range(100):
        now[0] += 1
        see(TrainingUpdate(text="Epoch 1", done=batch / 100))
    see(TrainingUpdate(text="Epoch 1 is done"))
    see(TrainingUpdate(text="Epoch 1", done=1))
    told = [json.loads(line) for line in lines]
    assert len(told) == 22
    assert told[-2:] == [{"text": "Epoch 1 is done"}, {"text": "Epoch 1", "done": 1.0}]
