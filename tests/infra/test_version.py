"""The version that a checkout gets from its tags."""

import subprocess
from pathlib import Path

import pytest
from packaging.version import Version

from infra import version as revision
from infra.version import NO_TAG, read_version


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, in the place of the project's."""
    git(tmp_path, "init", "--quiet")
    commit(tmp_path, "first")
    monkeypatch.setattr(revision, "PROJECT", tmp_path)
    for name in ("AHC_VERSION", "AHC_REVISION"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "tag.gpgSign=false", "-c", "commit.gpgSign=false")
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def commit(folder: Path, text: str) -> None:
    (folder / "file").write_text(text)
    git(folder, "add", "file")
    git(folder, "commit", "--quiet", "--message", text)


def now() -> str:
    revision.version.cache_clear()
    try:
        return revision.version()
    finally:
        revision.version.cache_clear()


def test_the_version_is_that_of_the_tag_and_counts_on_after_it(checkout: Path) -> None:
    git(checkout, "tag", "--annotate", "v1.2.0", "--message", "1.2.0")
    git(checkout, "tag", "something-else")
    assert now() == "1.2.0"
    commit(checkout, "second")
    later = now()
    assert later == f"1.2.0.post1+{git(checkout, 'rev-parse', '--short=12', 'HEAD').strip()}"
    (checkout / "file").write_text("changed")
    assert now() == f"{later}.dirty"
    assert Version("1.2.0") < Version(later) < Version("1.2.1")


def test_a_checkout_without_tags_still_has_a_version(checkout: Path) -> None:
    assert now() == f"{NO_TAG}+{git(checkout, 'rev-parse', '--short=12', 'HEAD').strip()}"


def test_an_unpacked_archive_still_has_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revision, "PROJECT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("AHC_VERSION", raising=False)
    assert now() == NO_TAG


def test_an_image_says_what_it_was_built_from(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AHC_VERSION", "3.2.1")
    assert now() == "3.2.1"


def test_the_address_of_the_repository_is_known_without_its_password(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BUILD_REPOSITORY_URI", raising=False)
    assert revision.repository() == ""
    git(checkout, "remote", "add", "origin", "https://somebody:secret@example.org/ahc.git")
    assert revision.repository() == "https://example.org/ahc.git"


@pytest.mark.parametrize("described", ["v1.0.0-0-gabcdef012345-dirty", "v1.0.0rc1-2-gabcdef012345", "abcdef-dirty", ""])
def test_every_version_can_be_ordered(described: str) -> None:
    Version(read_version(described))
