import json

import pytest

from deployments.cli.main import run as ahc
from infra.backend import backend
from infra.ports import LiveModel

ONE = LiveModel(name="photos", version=1, digest="1" * 64)
TWO = LiveModel(name="photos", version=2, digest="2" * 64)


@pytest.fixture
def events(home):
    """Two environments' events, in turns."""
    writer = backend(home).ledger()
    return [
        writer.append("test", "switched", ONE, by="ann", run="a" * 36, reason="the first"),
        writer.append("production", "switched", ONE, by="bob", run="b" * 36),
        writer.append("test", "switched", TWO, by="ann", run="c" * 36),
        writer.append("test", "rolled-back", ONE, by="watch", run="c" * 36, reason="5 % of its answers were 5xx"),
    ]


def facts(capsys):
    return json.loads(capsys.readouterr().out)


def dumped(events):
    return [event.model_dump(mode="json") for event in events]


def edit(home, environment, number):
    path = home.home / "ledger" / environment / f"{number:08d}.json"
    path.write_text(path.read_text().replace("ann", "eve"))


def test_events_of_all_environments_are_shown_newest_last_with_who_and_why(events, capsys):
    assert ahc(["ledger", "--json"]) == 0
    assert facts(capsys) == {"events": dumped(events), "total": 4, "problems": []}

    assert ahc(["ledger"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in shown[1:]] == ["test", "production", "test", "test"]
    for word in ("rolled-back", "photos v1", "111111111111", "watch", "cccccccc", "5 % of its answers were 5xx"):
        assert word in shown[-1]


def test_one_environment_and_the_last_of_its_events(events, capsys):
    assert ahc(["ledger", "test", "--limit", "2", "--json"]) == 0
    assert facts(capsys) == {"events": dumped(events[2:]), "total": 3, "problems": []}
    assert ahc(["ledger", "test", "--limit", "2"]) == 0
    assert "1 earlier: `ahc ledger test --limit 3`" in capsys.readouterr().out


def test_a_broken_chain_exits_with_its_code_also_where_the_broken_file_is_not_shown(home, events, capsys):
    edit(home, "test", 1)
    assert ahc(["ledger", "--limit", "2", "--json"]) == 51
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert told["events"] == dumped(events[2:])
    assert "00000001.json was edited" in told["problems"][0]
    assert str(home.home / "ledger" / "test") in told["problems"][0]
    assert json.loads(shown.err)["error"] == "LedgerBroken"

    assert ahc(["ledger"]) == 51
    shown = capsys.readouterr()
    assert "rolled-back" in shown.out
    assert "00000001.json was edited" in shown.err

    assert ahc(["ledger", "production"]) == 0


def test_a_platform_without_releases_has_no_event(home, capsys):
    assert ahc(["ledger"]) == 0
    assert "No event yet" in capsys.readouterr().out
    assert not (home.home / "ledger").exists()


def test_an_unknown_environment_is_named_with_the_nearest(home, capsys):
    assert ahc(["ledger", "prodution"]) == 20
    assert "did you mean `production`?" in capsys.readouterr().err
