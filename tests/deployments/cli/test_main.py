"""The command line itself: quick help, one place for errors."""

import json
import subprocess
import sys

import pytest

from deployments.cli.main import COMMANDS, DATA_COMMANDS, run
from infra.settings import PROJECT


def _ahc(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    import os

    return subprocess.run(
        [sys.executable, "-c", "from deployments.cli.main import main; main()", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_lists_every_command() -> None:
    answer = _ahc("--help")
    assert answer.returncode == 0
    assert all(f"  {name} " in answer.stdout for name in (*COMMANDS, "data"))


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from deployments.cli.main import run; run(['--help']); "
        "print([name for name in ('prefect', 'torch', 'mlflow', 'pandas', 'rich', 'yaml') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert answer.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", [*COMMANDS])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"ahc {command}" in capsys.readouterr().out


def test_the_table_of_commands_is_the_contract() -> None:
    assert set(COMMANDS) == {
        *("up", "run", "deploy", "trigger", "status", "score", "why", "rerun"),
        *("approve", "reject", "rollback", "doctor", "ledger", "model", "version"),
    }
    assert set(DATA_COMMANDS) == {"fetch", "list"}


def test_version_and_commit_are_told_either_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == run(["version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert run(["version", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert first == f"ahclassifier {told['version']} ({told['revision']})"


def test_an_unknown_command_is_a_usage_error_that_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["depoy"]) == 2
    assert "did you mean `deploy`?" in capsys.readouterr().err


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["deploy", "--nope"]) == 2
    assert "--nope" in capsys.readouterr().err


def test_an_error_of_ours_says_what_happened_what_to_do_and_where_to_read_on() -> None:
    answer = _ahc("deploy", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert answer.returncode == 22
    assert answer.stderr.startswith("ServerUnreachable: No Prefect server answers at http://127.0.0.1:9/api")
    assert "docs/runbook.md#server-unreachable" in answer.stderr
    assert "Exit code 22" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_with_json_errors_are_json_too() -> None:
    answer = _ahc("trigger", "lifecycle/local", "--json", PREFECT_API_URL="http://127.0.0.1:9/api")
    error = json.loads(answer.stderr)
    assert (answer.returncode, error["exit_code"], error["error"]) == (22, 22, "ServerUnreachable")
    assert error["next_step"]


def test_a_bug_shows_no_traceback_but_keeps_it(tmp_path, monkeypatch, capsys) -> None:
    from deployments.cli.errors import show_failure
    from infra.settings import get_settings

    monkeypatch.setenv("AHC_HOME", str(tmp_path))
    get_settings.cache_clear()
    with pytest.raises(KeyError) as caught:
        {}["nobody expected this"]
    assert show_failure(caught.value, as_json=False) == 1
    get_settings.cache_clear()
    shown = capsys.readouterr().err
    log = tmp_path / "logs" / "ahc-errors.log"
    assert str(log) in shown
    assert "Traceback" not in shown
    assert "nobody expected this" in log.read_text(encoding="utf-8")
