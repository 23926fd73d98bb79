"""Which code runs: the commit, and the version of the platform that its tags give it.

An image holds no checkout: what it was built from is in its variables AHC_VERSION and AHC_REVISION.
"""

import os
import re
import subprocess
from functools import lru_cache
from typing import Final

from infra.settings import PROJECT

NO_TAG: Final = "0.0.0"
"""The version of a checkout without tags, such as CI's shallow clone, and of an unpacked archive."""


@lru_cache(maxsize=1)
def revision() -> str:
    """The commit of this checkout, with `-dirty` where files differ from it; `unknown` outside a git checkout."""
    return os.environ.get("AHC_REVISION") or _describe("--exclude=*") or "unknown"


@lru_cache(maxsize=1)
def version() -> str:
    """`1.2.0` where the tag `v1.2.0` is checked out; after it `1.2.0.post3+COMMIT`, with `.dirty` where files differ.

    Without a tag it is that of `NO_TAG`.
    """
    return os.environ.get("AHC_VERSION") or read_version(_describe("--tags", "--long", "--match=v[0-9]*"))


def read_version(described: str) -> str:
    """The version of what `git describe` says; the empty text stands for no checkout at all."""
    match = re.fullmatch(r"(?:v(?P<tag>\S+)-(?P<commits>\d+)-g)?(?P<commit>[0-9a-f]+)(?P<dirty>-dirty)?", described)
    if match is None:
        return NO_TAG
    tag, commits, local = match["tag"], match["commits"], match["commit"] + (".dirty" if match["dirty"] else "")
    if tag is None:
        return f"{NO_TAG}+{local}"
    if commits == "0" and not match["dirty"]:
        return tag
    return f"{tag}+{local}" if commits == "0" else f"{tag}.post{commits}+{local}"


def platform() -> str:
    """Both in one line, as in `1.2.0 (0123456789ab)`."""
    return f"{version()} ({revision()})"


def repository() -> str:
    """The address of the repository, without names and passwords in it; empty where it is not known."""
    address = os.environ.get("BUILD_REPOSITORY_URI") or _git("remote", "get-url", "origin")
    return re.sub(r"(?<=://)[^/@]*@", "", address)


def _describe(*options: str) -> str:
    return _git("describe", "--always", "--dirty", "--abbrev=12", *options)


def _git(*arguments: str) -> str:
    """What git answers; nothing where it can't."""
    try:
        answer = subprocess.run(
            ["git", *arguments],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
