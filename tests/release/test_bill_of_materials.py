"""What `make sbom` writes, of the packages that the scoring image has."""

import json
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

from infra.settings import PROJECT

pytestmark = pytest.mark.long
SAYS_NO_LICENCE = {"protobuf": "3-clause BSD, in its LICENSE file only"}


def of_extra(extra: str) -> dict[str, Distribution]:
    """The distributions of an extra of ours, with all that they need, as they are installed here."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(f"ahclassifier[{extra}]")]
    while waiting:
        wanted = waiting.pop()
        item = distribution(wanted.name)
        extras = [*wanted.extras, ""]
        key = f"{wanted.name.lower()}[{','.join(extras)}]"
        if key in found:
            continue
        found[key] = item
        needed = [Requirement(text) for text in item.requires or []]
        waiting += [it for it in needed if not it.marker or any(it.marker.evaluate({"extra": name}) for name in extras)]
    return {name: item for item in found.values() if (name := item.metadata["Name"]) != "ahclassifier"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that says it has what the scoring image has; the packages' code is of no matter."""
    folder = tmp_path_factory.mktemp("scoring")
    venv.create(folder, with_pip=False)
    [packages] = folder.glob("lib/python*/site-packages")
    for item in of_extra("container").values():
        [metadata] = {
            Path(str(item.locate_file(""))) / file.parts[0] for file in item.files or [] if file.name == "METADATA"
        }
        shutil.copytree(metadata, packages / metadata.name)
    return folder


@pytest.fixture(scope="module")
def bill(environment: Path) -> str:
    options = re.search(r"^SBOM := (.+)$", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert options
    target = environment / "bill.json"
    subprocess.run(
        [
            *(Path(sys.executable).parent / "cyclonedx-py", *options[1].split()),
            *("--pyproject", PROJECT / "pyproject.toml", "-o", target, environment / "bin" / "python"),
        ],
        check=True,
        timeout=250,
    )
    return target.read_text(encoding="utf-8")


def test_it_is_valid_cyclonedx(bill: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    damaged = json.loads(bill)
    damaged["components"][0]["type"] = "nonsense"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(damaged)) is not None


def test_it_names_every_package_with_version_and_licence(bill: str) -> None:
    content: dict[str, Any] = json.loads(bill)
    assert content["metadata"]["component"]["name"] == "ahclassifier"
    listed = {item["name"]: item for item in content["components"]}
    for name, item in of_extra("container").items():
        assert listed[name]["version"] == item.version
        assert listed[name].get("licenses") or name in SAYS_NO_LICENCE, name
    assert {"fastapi", "onnxruntime", "numpy"} <= set(listed)
    assert not {"torch", "prefect"} & set(listed)
