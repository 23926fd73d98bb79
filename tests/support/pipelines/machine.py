"""What an agent finds on its machine: a checkout of its own, and programs in place of those that need the internet."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from infra.settings import PROJECT

STAND_INS: Final = {
    "tools/pip-audit-2.10.1/bin/pip-audit": "asks PyPI for advisories",
    "bin/docker": "trivy, which fetches its database and pulls the image",
}
"""Programs, and what they would do that can't be done here; each writes down how it was called.

checkov is not among them: `make policies` runs those tests of the policies that need none.
"""
OTHERS: Final = ("AHC_", "PREFECT_", "PYTEST_", "COVERAGE_", "COV_", "AZURE_", "OTEL_", "TF_BUILD", "MAKE", "MFLAGS")
"""What is set here for other purposes."""


def checkout(folder: Path) -> Path:
    """The sources as they are now, as a git checkout of their own."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (source := PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    (folder / ".venv").symlink_to((PROJECT / ".venv").resolve())
    # As right after an install: nothing is newer than it.
    for name in ("pyproject.toml", "constraints.txt"):
        os.utime(folder / name, (0, 0))
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "A checkout"]):
        who = ["-c", "user.name=agent", "-c", "user.email=agent@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *command], cwd=folder, check=True, capture_output=True)
    return folder


def stand_ins(folder: Path) -> None:
    """Make them."""
    for name in (*STAND_INS, "tools/checkov-3.3.30/bin/checkov"):
        program = folder / name
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\necho "{program.name} $*" | tee -a {folder}/calls\n')
        program.chmod(0o755)
        if name.startswith("tools"):
            (program.parents[1] / "complete").touch()


def environment(folder: Path, sources: Path, **more: str) -> Mapping[str, str]:
    """The environment of the agent's processes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
    return {
        **kept,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(sources),
        "TOOLS": str(folder / "tools"),
        "MYPY_CACHE_DIR": str(PROJECT / ".mypy_cache"),
        **more,
    }
