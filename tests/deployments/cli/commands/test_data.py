import json

from deployments.cli.main import run as ahc


def test_a_sample_is_fetched_into_folders_by_label_and_again_in_no_time(home, tmp_path, capsys):
    for _ in range(2):
        assert ahc(["data", "fetch", "digits", str(tmp_path / "digits"), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["labels"] == [str(digit) for digit in range(10)]
        assert told["images"] == len(list((tmp_path / "digits").glob("*/*.png"))) > 1000


def test_an_unknown_sample_is_named_with_the_nearest(home, tmp_path, capsys):
    assert ahc(["data", "fetch", "fod", str(tmp_path / "x")]) == 20
    assert "did you mean `food`?" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_the_list_says_where_samples_come_from_and_under_which_licence(home, capsys):
    assert ahc(["data", "list"]) == 0
    shown = capsys.readouterr().out
    assert "food" in shown
    assert "AGPL" in shown
