"""CHANGELOG.md, in the form of keepachangelog.com."""

import re
import subprocess
from datetime import date

import pytest
from packaging.version import Version

from infra.settings import PROJECT

TEXT = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^## (.+)$", TEXT, flags=re.MULTILINE)
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def released() -> list[tuple[Version, date]]:
    found = []
    for heading in HEADINGS[1:]:
        parts = re.fullmatch(r"\[?(?P<version>\d\S*?)\]? - (?P<day>\d{4}-\d{2}-\d{2})", heading)
        assert parts, f"`{heading}` is not `VERSION - YEAR-MONTH-DAY`"
        found.append((Version(parts["version"]), date.fromisoformat(parts["day"])))
    return found


def test_what_is_not_released_comes_first() -> None:
    assert HEADINGS[0] in {"Unreleased", "[Unreleased]"}


def test_the_newest_release_comes_first_and_none_twice() -> None:
    versions = [version for version, _ in released()]
    assert versions == sorted(set(versions), reverse=True)


def test_each_change_is_of_a_kind() -> None:
    assert set(re.findall(r"^### (.+)$", TEXT, flags=re.MULTILINE)) <= KINDS


def test_the_newest_tag_has_its_section() -> None:
    listed = subprocess.run(
        ["git", "tag", "--list", "v[0-9]*", "--merged", "HEAD"], cwd=PROJECT, capture_output=True, text=True
    )
    if listed.returncode or not listed.stdout.strip():
        pytest.skip("this checkout has no tags")
    newest = max(Version(tag.removeprefix("v")) for tag in listed.stdout.split())
    assert newest in {version for version, _ in released()}
