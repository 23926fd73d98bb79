import json
import os
import sqlite3
import subprocess
import sys

import pytest

from deployments.cli.main import run as ahc
from infra.runs.starter_tag import user
from infra.settings import PROJECT
from tasks.framework.run_starter import who_started

pytestmark = pytest.mark.thorough


def in_a_process(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Commands that run flows change the environment of their process."""
    command = [sys.executable, "-c", "from deployments.cli.main import main; main()", *arguments]
    return subprocess.run(command, cwd=PROJECT, env=dict(os.environ), capture_output=True, text=True, timeout=120)


def test_without_a_server_a_flow_runs_and_is_recorded_where_the_next_up_finds_it(home):
    done = in_a_process("run", "infrastructure", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["state"] == "Completed"
    with sqlite3.connect(home.home / "prefect" / "prefect.db") as database:
        assert database.execute("SELECT name, state_name FROM flow_run").fetchall() == [
            ("infrastructure check", "Completed")
        ]


def test_with_a_server_the_run_is_shown_there_with_who_started_it(platform):
    from deployments.runs.queries import find_run
    from deployments.server.connection import server

    done = in_a_process("run", "infrastructure", "--json")
    assert done.returncode == 0, done.stderr
    with server(platform) as client:
        run = find_run(client, json.loads(done.stdout)["run"])
    assert run.name == "infrastructure check"
    assert who_started(run) == user()


def test_a_wrong_flow_and_a_wrong_parameter_are_named_with_the_nearest(platform, capsys):
    assert ahc(["run", "relese"]) == 20
    assert "did you mean `release`?" in capsys.readouterr().err
    assert ahc(["run", "release", "-p", "name=food", "-p", "version=2", "-p", "enviroment=test"]) == 20
    assert "did you mean `environment`?" in capsys.readouterr().err


def test_a_run_ends_with_the_errors_exit_code(platform):
    done = in_a_process("run", "rollback", "-p", "environment=production", "-p", "reason=test")
    assert done.returncode == 28, done.stderr
    assert "NothingToRollBackTo" in done.stdout
