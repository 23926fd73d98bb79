"""Where reports are kept on one machine, and how people are told to open them."""

import shlex

import pytest

from infra.settings import get_settings
from tasks.framework.reports import how_to_open, keep_report, read_report


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("AHC_HOME", str(tmp_path))
    monkeypatch.setenv("AHC_BACKEND", "local")
    get_settings.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


def test_a_report_on_one_machine_is_a_file_that_a_browser_opens(home):
    uri = keep_report("food@3f2a91", "data-report.html", b"<html>")
    assert uri == str(home / "reports" / "food@3f2a91" / "data-report.html")
    assert read_report(uri) == b"<html>"
    assert how_to_open(uri) == f"`{uri}`"


def test_a_report_made_again_replaces_the_one_before(home):
    keep_report("food", "page.html", b"one")
    assert read_report(keep_report("food", "page.html", b"two")) == b"two"


def test_what_a_browser_cannot_open_comes_with_the_command_that_fetches_it():
    told = how_to_open("abfs://data@stahc.dfs.core.windows.net/reports/food@3f/data-report.html")
    command = shlex.split(told.split("`")[3])
    assert command[:4] == ["az", "storage", "blob", "download"]
    assert "https://stahc.blob.core.windows.net/data/reports/food@3f/data-report.html" in command
    assert command[-1] == "data-report.html"
