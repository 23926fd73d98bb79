"""The rooms: how many modules a folder holds, what each says of itself, and that import-linter knows all of them."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from infra.settings import PROJECT

ROOTS = ("flows", "tasks", "model", "infra", "deployments")
PACKAGES = [file.parent for root in ROOTS for file in sorted((PROJECT / root).rglob("__init__.py"))]
MODULES_OF_A_ROOM = 16
CONTRACTS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LAYERED = {name for contract in CONTRACTS if contract.get("exhaustive") for name in contract["containers"]}


def dotted(package: Path) -> str:
    return ".".join(package.relative_to(PROJECT).parts)


def modules(folder: Path) -> list[Path]:
    return [file for file in folder.glob("*.py") if file.name != "__init__.py"]


def purpose(package: Path) -> str:
    return ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""


@pytest.mark.parametrize("package", PACKAGES, ids=dotted)
def test_a_room_is_small_enough_to_see_its_doors(package):
    # The commands of `ahc` are a list that people read by name.
    assert len(modules(package)) <= MODULES_OF_A_ROOM + (2 if dotted(package) == "deployments.cli.commands" else 0)


@pytest.mark.parametrize("package", PACKAGES, ids=dotted)
def test_a_room_says_what_lives_there(package):
    assert purpose(package)


def test_the_folder_map_of_the_architecture_is_what_the_rooms_say_of_themselves():
    text = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## The folder map\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{package.relative_to(PROJECT)}/` | {' '.join(purpose(package).split())} |" for package in PACKAGES
    ]


def test_every_package_with_rooms_has_a_contract_that_names_all_of_them():
    nested = {
        dotted(package) for package in PACKAGES if any((item / "__init__.py").exists() for item in package.iterdir())
    }
    assert nested - LAYERED == {"model.serving", "deployments.cli", "infra.azure.endpoint"}, (
        "a package got rooms: give it a contract in pyproject.toml"
    )


def test_test_folders_hold_tests_and_their_helpers_live_in_support():
    strays = [
        str(file.relative_to(PROJECT))
        for file in (PROJECT / "tests").rglob("*.py")
        if "support" not in file.parts
        and not file.name.startswith("test_")
        and file.name not in {"__init__.py", "conftest.py"}
    ]
    assert sorted(strays) == ["tests/e2e/rehearsal.py", "tests/kubernetes/rehearsal.py"], "programs that people start"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The source alone, to be broken."""
    folder = tmp_path_factory.mktemp("house")
    for root in ROOTS:
        shutil.copytree(
            PROJECT / root,
            folder / root,
            ignore=lambda where, names: [
                name for name in names if not name.endswith(".py") and not (Path(where) / name).is_dir()
            ],
        )
    shutil.copy(PROJECT / "pyproject.toml", folder)
    return folder


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command as main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(folder), "PATH": "", "COLUMNS": "200"},
    )


def test_the_contracts_hold(copy):
    answer = lint(copy)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("model/errors.py", "import model.training.fit", "Rooms of model"),
        ("infra/azure/access/clients.py", "import infra.azure.endpoint.environment", "Rooms of infra.azure"),
        ("infra/local/image_builds.py", "import tasks.framework.stage", "Dependencies run one way"),
    ],
)
def test_an_arrow_that_runs_up_is_refused(copy, file, line, contract):
    source = (copy / file).read_text(encoding="utf-8")
    (copy / file).write_text(f"{source}\n{line}\n", encoding="utf-8")
    try:
        answer = lint(copy)
    finally:
        (copy / file).write_text(source, encoding="utf-8")
    assert answer.returncode == 1
    assert f"{contract} BROKEN" in answer.stdout


def test_a_module_in_no_layer_is_refused(copy):
    (copy / "model" / "attic.py").write_text('"""Nobody named its place."""\n')
    try:
        answer = lint(copy)
    finally:
        (copy / "model" / "attic.py").unlink()
    assert answer.returncode != 0
    assert "attic" in answer.stdout


@pytest.mark.parametrize("document", sorted((PROJECT / "docs").rglob("*.md")), ids=lambda path: path.name)
def test_every_module_that_a_document_names_is_there(document):
    files = [*PROJECT.glob("*.py"), *(file for root in (*ROOTS, "tests") for file in (PROJECT / root).rglob("*.py"))]
    names = {file.name for file in files} | {str(file.relative_to(PROJECT)) for file in files}
    mentions = set(re.findall(r"`([\w/]+\.py)`", document.read_text(encoding="utf-8")))
    assert mentions - names == set()
