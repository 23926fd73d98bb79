import json
from collections.abc import Iterator

import pytest

from deployments.cli.main import run as ahc
from infra.backend import release_target
from infra.ports import LiveModel
from infra.settings import Settings
from tests.support.bundles import colour_image, make_bundle


@pytest.fixture
def serving(home: Settings, tmp_path) -> Iterator[Settings]:
    """A home whose environment `test` serves a tiny model of colours."""
    bundle = make_bundle(tmp_path / "bundle")
    target = release_target("test", home).endpoint()
    try:
        target.switch(target.deploy(tmp_path / "bundle", LiveModel(name=bundle.name, version=3, digest=bundle.digest)))
        yield home
    finally:
        target.stop()


@pytest.fixture
def images(tmp_path):
    for name in ("red", "blue", "green"):
        (tmp_path / f"{name}.png").write_bytes(colour_image(name))
    (tmp_path / "text.jpg").write_text("not an image")
    return tmp_path


def test_files_are_scored_and_bad_ones_are_named_without_stopping_the_others(serving, images, capsys):
    files = [str(images / name) for name in ("red.png", "text.jpg", "missing.jpg", "blue.png")]

    code = ahc(["score", *files, "--json"])

    told = json.loads(capsys.readouterr().out)
    labels = [item["answer"] and item["answer"]["predictions"][0]["label"] for item in told["results"]]
    assert labels == ["red", None, None, "blue"]
    assert told["results"][0]["answer"]["model"]["version"] == 3
    assert [item["error"] for item in told["results"]] == [None, "RequestRejected", "SourceUnreadable", None]
    assert "missing.jpg" in told["results"][2]["message"]
    assert told["environment"] == "test"
    assert code == max(item["exit_code"] for item in told["results"]) > 0


def test_the_answer_for_people_shows_the_best_labels_and_the_model(serving, images, capsys):
    assert ahc(["score", str(images / "green.png"), "--top", "2"]) == 0
    shown = capsys.readouterr().out
    assert "green" in shown.splitlines()[0]
    assert "1 scored by colours v3 in test" in shown
    assert len(shown.splitlines()) == 4  # the best label, two bars, the total


def test_status_and_doctor_tell_the_live_model_and_that_the_registry_knows_nothing_of_it(serving, capsys):
    assert ahc(["status", "--json"]) == 0
    environment = json.loads(capsys.readouterr().out)["environments"][0]
    assert environment["endpoint"]["live"]["version"] == 3
    assert any("the registry names no champion" in line for line in environment["differences"])

    assert ahc(["doctor", "--env", "test", "--json"]) == 33
    findings = {item["name"]: item for item in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["endpoint"]["ok"]
    assert not findings["champion"]["ok"]
    assert not findings["answers"]["ok"]  # nobody knows what it should answer
    assert "no version 3 of `colours`" in findings["answers"]["detail"]


def test_an_environment_that_serves_nothing_is_one_error_with_how_to_start_it(home, images, capsys):
    assert ahc(["score", str(images / "red.png"), str(images / "blue.png")]) == 26
    shown = capsys.readouterr()
    assert shown.err.count("EndpointUnreachable") == 1
    assert "ahc up" in shown.err


def test_an_unknown_environment_is_named_with_the_nearest(home, images, capsys):
    assert ahc(["score", str(images / "red.png"), "--env", "prodution"]) == 20
    assert "did you mean `production`?" in capsys.readouterr().err
