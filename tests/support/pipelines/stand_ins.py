"""What Azure DevOps itself does in a build, and what stands in for it here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET


def _nothing(inputs: Mapping[str, str], sources: Path) -> str:
    return ""


def _test_results(inputs: Mapping[str, str], sources: Path) -> str:
    files = list(Path(inputs["searchFolder"]).glob(inputs["testResultsFiles"]))
    if not files:
        missing = f"no {inputs['testResultsFiles']} in {inputs['searchFolder']}"
        return missing if inputs.get("failTaskOnMissingResultsFile") == "true" else ""
    wrong = [file.name for file in files if ET.parse(file).getroot().tag not in ("testsuite", "testsuites")]
    return f"no JUnit: {wrong}" if wrong else ""


def _coverage(inputs: Mapping[str, str], sources: Path) -> str:
    file = Path(inputs["summaryFileLocation"])
    if not file.exists():
        return f"{file} is not there"
    return "" if ET.parse(file).getroot().get("line-rate") else f"{file} is no Cobertura"


def _published(inputs: Mapping[str, str], sources: Path) -> str:
    return "" if Path(inputs["publish"]).exists() else f"{inputs['publish']} is not there"


REPLACED: Final[dict[str, Callable[[Mapping[str, str], Path], str]]] = {
    "checkout": _nothing,  # the checkout is there
    "UsePythonVersion@0": _nothing,  # this Python is taken
    "Cache@2": _nothing,
    "PublishTestResults@2": _test_results,  # the file is there and is JUnit
    "PublishCodeCoverageResults@2": _coverage,  # the file is there and is Cobertura
    "publish": _published,  # the file is there
}
"""What Azure DevOps does, and what stands in: each answers what is wrong, or nothing. docs/devops.md lists them too.

Of AzureCLI@2 the script is run; its sign-in is that of the agent's `signed_in`.
"""
