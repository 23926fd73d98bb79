"""ARM parameter files and environment files of a test: the shipped ones, changed."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import yaml

from infra.azure.access.resources import PLATFORM
from infra.config.environments import environment_names
from infra.settings import PROJECT, Settings
from tests.support.azure.bench import azure_settings

SHIPPED: Final = PROJECT / "infra" / "arm" / "parameters"
ENVIRONMENTS: Final = environment_names(PROJECT / "deployments" / "environments")
TARGETS: Final = [PLATFORM, *ENVIRONMENTS]
GROUP: Final = "11111111-2222-3333-4444-666666666666"
"""Object id of a group of people."""
BENCH: Final[dict[str, Any]] = {
    "clusterExtension": False,
    "clusterLogs": False,
    "database": False,
    "modelEvents": False,
    "workbook": False,
    "workloadIdentity": False,
}
"""Switches off what the bench can't deploy: its specifications lack the providers, or it has no OIDC issuer."""
EVERYTHING: Final[dict[str, Any]] = {
    "clusterExtension": True,
    "gpuNodesMax": 2,
    "budgetAmount": 500,
    "budgetStart": "2026-11-01",
    "buildAgent": True,
    "natGateway": True,
    "buildAgentSshKey": "ssh-ed25519 AAAA agent",
    "operatorsGroupId": GROUP,
    "alertEmails": ["on-call@example.com"],
}
PRIVATE: Final[dict[str, Any]] = {
    "privateEndpoints": True,
    "allowedAddresses": ["203.0.113.0/24"],
    "operatorsGroupId": GROUP,
}


def shipped_settings(folder: Path) -> Settings:
    """Settings with a copy of the shipped parameter files, to be changed."""
    return azure_settings(folder / "home", azure_parameters=shutil.copytree(SHIPPED, folder / "parameters"))


def bench_settings(folder: Path) -> Settings:
    """Settings with parameter files without what the bench can't deploy."""
    return azure_settings(folder / "home", azure_parameters=bench_parameters(folder / "parameters"))


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


def with_environment(settings: Settings, folder: Path, name: str = "test", **azure: Any) -> Settings:
    """Settings whose environment file of this name has these values under `azure`."""
    files = shutil.copytree(settings.environments, folder / "environments")
    content = yaml.safe_load((files / f"{name}.yaml").read_text())
    (files / f"{name}.yaml").write_text(yaml.safe_dump({**content, "azure": azure}))
    return settings.model_copy(update={"environments": files})
