"""The published schema of Azure Pipelines, by check-jsonschema."""

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

COVERAGE: Final = {
    "properties": {
        "task": {"pattern": "^PublishCodeCoverageResults@2$"},
        "inputs": {
            "properties": {
                "summaryFileLocation": {"type": "string"},
                "pathToSources": {"type": "string"},
                "failIfCoverageEmpty": {"type": "boolean"},
            },
            "additionalProperties": False,
            "required": ["summaryFileLocation"],
        },
    },
    "firstProperty": ["task"],
    "required": ["task", "inputs"],
}
"""The schema (v1.261) knows version 1 only, and calls it deprecated.

https://learn.microsoft.com/azure/devops/pipelines/tasks/reference/publish-code-coverage-results-v2
"""


def problems(contents: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """By name, what the schema has against each pipeline; nothing about those that it has nothing against."""
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/azure-pipelines.json").read_text())
    schema["definitions"]["task"]["anyOf"].append(COVERAGE)
    (folder / "schema.json").write_text(json.dumps(schema))
    found = {}
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(_typed(content)))
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(folder / "schema.json")]
    command += ["--data-transform", "azure-pipelines", "--regex-variant", "python", "--output-format", "json"]
    command += [str(folder / f"{name}.json") for name in contents]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    for error in [*report["errors"], *report.get("parse_errors", [])]:
        best = error.get("best_deep_match", error)
        found[Path(error["filename"]).stem] = f"{best.get('path')}: {best.get('message')}"
    assert bool(found) == bool(done.returncode), done.stderr
    return found


def _typed(content: Any, *, inputs: bool = False) -> Any:
    """All values are text in this schema, but for the inputs of tasks, which have types."""
    if isinstance(content, dict):
        return {key: _typed(value, inputs=inputs or key == "inputs") for key, value in content.items()}
    if isinstance(content, list):
        return [_typed(item) for item in content]
    return content == "true" if inputs and content in ("true", "false") else content
