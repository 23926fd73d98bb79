import json
from pathlib import Path

import pytest

from deployments.cli.main import run as ahc
from infra.backend import backend
from infra.settings import Settings
from tests.support.bundles import make_bundle


@pytest.fixture
def registered(home: Settings, tmp_path: Path) -> None:
    """Two versions of `food`, of which the newer one is rejected, and one of `tea`."""
    for name, code, verdict in (("food", "1", "promote"), ("food", "2", "reject"), ("tea", "1", "promote")):
        bundle = make_bundle(tmp_path / f"{name}-{code}", name=name, code=f"{name} {code}")
        backend(home).registry().register(
            Path(bundle.path), name=name, digest=bundle.digest, tags={"verdict": verdict}, metrics={}
        )


def test_the_newest_version_that_was_good_enough_is_found(registered, capsys, monkeypatch):
    assert ahc(["model", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tea"
    monkeypatch.setenv("TF_BUILD", "True")
    assert ahc(["model", "food"]) == 0
    told = capsys.readouterr().out
    assert "##vso[task.setvariable variable=modelVersion;isOutput=true;]1\n" in told
    assert "##vso[build.addbuildtag]food-v1\n" in told


def test_a_version_by_name_is_what_it_is_and_a_wrong_one_is_told(registered, capsys):
    assert ahc(["model", "food:2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tags"]["verdict"] == "reject"
    assert ahc(["model", "food:9"]) == 27
    assert ahc(["model", "fod"]) == 20
    assert "did you mean `food`?" in capsys.readouterr().err
    assert ahc(["model", "food:new"]) == 20


def test_without_a_promoted_version_there_is_none(home, capsys):
    assert ahc(["model"]) == 27
    assert "promote" in capsys.readouterr().err
