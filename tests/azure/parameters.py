"""ARM parameter files of a test: the shipped ones, changed."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

from infra.azure.resources import PLATFORM
from infra.settings import PROJECT

SHIPPED: Final = PROJECT / "infra" / "arm" / "parameters"
BENCH: Final[dict[str, Any]] = {
    "clusterExtension": False,
    "clusterLogs": False,
    "database": False,
    "modelEvents": False,
    "workbook": False,
    "workloadIdentity": False,
}
"""Switches off what the bench can't deploy: its specifications lack the providers, or it has no OIDC issuer."""


def bench_parameters(folder: Path, environments: dict[str, dict[str, Any]] | None = None, **platform: Any) -> Path:
    """The shipped files without what the bench can't deploy.

    Args:
        folder: Is made, and answered.
        environments: Further values by an environment's name.
        platform: Further values of the platform.
    """
    shutil.copytree(SHIPPED, folder)
    for path in folder.glob("*.json"):
        changes = {**BENCH, **platform} if path.stem == PLATFORM else {"workbook": False}
        change(path, **changes, **(environments or {}).get(path.stem, {}))
    return folder


def change(path: Path, **values: Any) -> None:
    """Set parameters of a file."""
    content = json.loads(path.read_text())
    content["parameters"] |= {name: {"value": value} for name, value in values.items()}
    path.write_text(json.dumps(content, indent=2))
