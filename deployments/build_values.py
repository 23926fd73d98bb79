"""What a command tells the build of Azure Pipelines that it is a part of."""

from pathlib import Path

from pydantic import BaseModel

from deployments.azure_pipelines import command


def set_output(name: str, value: object) -> None:
    """Set an output variable of the step, which later steps, jobs and stages read."""
    print(command("task.setvariable", str(value), variable=name, isOutput="true"), flush=True)


def set_outputs(result: object) -> None:
    """Set the plain values of a flow's result as output variables: `image.reference` becomes `imageReference`."""
    if not isinstance(result, BaseModel):
        return
    for name, value in _plain(result.model_dump(mode="json")).items():
        set_output(name, value)


def tag_build(tag: str) -> None:
    """Tag the build, so that it is found by what it is about."""
    print(command("build.addbuildtag", tag), flush=True)


def upload_summary(file: Path) -> None:
    """Show a Markdown file on the page of the build."""
    print(command("task.uploadsummary", str(file.resolve())), flush=True)


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
