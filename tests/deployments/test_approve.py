import json
from uuid import uuid4

import pytest

from deployments.cli import run as ahc
from deployments.commands.approve import _resume
from deployments.connection import server
from infra.errors import ConfigurationError
from tests.deployments.conftest import wait_for

WHO = ["--by", "A. Jansen", "--reason", "checked on 200 photos"]


def test_an_approved_release_goes_on_with_who_and_why(start, platform, tmp_path, capsys):
    waiting = start("decided", folder=str(tmp_path), name=uuid4().hex)

    # Whatever is wrong with a decision, the release still waits.
    assert ahc(["approve"]) == 2
    assert waiting.name in capsys.readouterr().out
    assert ahc(["approve", "no such release", *WHO]) == 32
    assert f"Waiting: {waiting.name}" in capsys.readouterr().err
    assert ahc(["approve", str(waiting.id), "--by", "A. Jansen"]) == 20
    assert "--reason" in capsys.readouterr().err
    # The server answers 200 to this one.
    with server(platform) as client, pytest.raises(ConfigurationError, match="'by' is a required property"):
        _resume(client, waiting, {"approved": True})
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
