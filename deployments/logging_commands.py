"""What a command tells the build that it is a part of, in the logging commands of Azure Pipelines.

https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands
"""

import os
from pathlib import Path

from pydantic import BaseModel


def in_pipeline() -> bool:
    """Whether an agent of Azure Pipelines runs this process."""
    return os.environ.get("TF_BUILD") == "True"


def set_output(name: str, value: object) -> None:
    """Set an output variable of the step, which later steps, jobs and stages read."""
    print(f"##vso[task.setvariable variable={name};isOutput=true]{_escaped(str(value))}", flush=True)


def set_outputs(result: object) -> None:
    """Set the plain values of a flow's result as output variables: `image.reference` becomes `imageReference`."""
    if not isinstance(result, BaseModel):
        return
    for name, value in _plain(result.model_dump(mode="json")).items():
        set_output(name, value)


def tag_build(tag: str) -> None:
    """Tag the build, so that it is found by what it is about."""
    print(f"##vso[build.addbuildtag]{tag}", flush=True)


def upload_summary(file: Path) -> None:
    """Show a Markdown file on the page of the build."""
    print(f"##vso[task.uploadsummary]{file.resolve()}", flush=True)


def _plain(values: dict[str, object], before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        words = [word for word in f"{before}_{name}".split("_") if word]
        joined = words[0] + "".join(word.capitalize() for word in words[1:])
        if isinstance(value, dict) and not before:
            found |= _plain(value, joined)
        elif isinstance(value, str | int | float):
            found[joined] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def _escaped(value: str) -> str:
    return value.replace("%", "%AZP25").replace("\r", "%0D").replace("\n", "%0A")
