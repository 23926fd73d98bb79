"""Logging commands of Azure Pipelines, and text that can't be mistaken for one.

The agent takes a line for a command wherever `##vso[` stands in it; `##[` at the start of a line only shapes the log.
Rules and escapes: https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands and the agent's
`Command.cs`, which reads them.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import BaseModel

_SEQUENCES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_NOT_IN_XML: Final = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: str) -> str:
    """Without colours and cursor moves; other control characters and lone surrogates become `�`."""
    return _NOT_IN_XML.sub("\ufffd", _SEQUENCES.sub("", text))


# In this order: the per cent signs of the later ones are not those of the text.
ESCAPES: Final = (("%", "%AZP25"), ("\r", "%0D"), ("\n", "%0A"))
PROPERTY_ESCAPES: Final = (*ESCAPES, ("]", "%5D"), (";", "%3B"))
_ANYTHING_UNSEEN: Final = r"[^\x20-\x7e]*"
_COMMAND: Final = re.compile(
    _ANYTHING_UNSEEN.join(("#", "#", f"(?:{_ANYTHING_UNSEEN.join(('v', 's', 'o'))})?", r"\[")), re.IGNORECASE
)


def in_azure_pipelines() -> bool:
    """Whether an agent of Azure Pipelines runs this process."""
    return os.environ.get("TF_BUILD", "").casefold() == "true"


def command(name: str, text: str = "", **properties: str) -> str:
    """One logging command, such as `task.setvariable`, on one line whatever its values hold."""
    given = "".join(f"{key}={_escaped(value, PROPERTY_ESCAPES)};" for key, value in properties.items())
    return f"##vso[{name}{' ' if given else ''}{given}]{_escaped(text, ESCAPES)}"


def defused(text: str) -> str:
    """Text of others, such as a log line, in which the agent finds no command."""
    lines = printable(text).splitlines()
    return "\n".join(_COMMAND.sub(lambda match: match[0].replace("#", "# ", 1), line) for line in lines)


def _escaped(text: str, escapes: tuple[tuple[str, str], ...]) -> str:
    for character, stands_for in escapes:
        text = text.replace(character, stands_for)
    return text


class Log:
    """The log of one step of a build.

    Args:
        write: Writes one line, without its end, to what the agent reads.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._in_group = False

    def line(self, text: str, level: int = 20) -> None:
        """A line of text; red from level 40 on, yellow from 30 on."""
        mark = "##[error]" if level >= 40 else "##[warning]" if level >= 30 else ""
        for line in defused(text).split("\n"):
            self._write(f"{mark}{line}")

    def group(self, title: str) -> None:
        """Fold the following lines under a title; Azure Pipelines knows no group inside a group."""
        self.end_group()
        self._write(f"##[group]{' '.join(defused(title).split())}")
        self._in_group = True

    def end_group(self) -> None:
        if self._in_group:
            self._write("##[endgroup]")
            self._in_group = False

    def issue(self, kind: str, text: str) -> None:
        """An `error` or `warning` that the build's summary page shows."""
        self._write(command("task.logissue", defused(text), type=kind))

    def progress(self, percent: float, text: str) -> None:
        self._write(command("task.setprogress", defused(text), value=f"{percent:.0f}"))

    def variable(self, name: str, value: object) -> None:
        """An output variable: later jobs and stages read it as `outputs['STEP.NAME']`."""
        self._write(command("task.setvariable", printable(str(value)), variable=name, isOutput="true"))

    def summary(self, file: Path) -> None:
        """Show a Markdown file on the build's summary page."""
        self._write(command("task.uploadsummary", str(file.absolute())))

    def succeed_with_issues(self, text: str) -> None:
        self._write(command("task.complete", defused(text), result="SucceededWithIssues"))


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
    variables: dict[str, str] = {}
    for name, value in values.items():
        words = [word for word in f"{before}_{name}".split("_") if word]
        joined = words[0] + "".join(word.capitalize() for word in words[1:])
        if isinstance(value, dict) and not before:
            variables |= _plain(value, joined)
        elif isinstance(value, str | int | float):
            variables[joined] = str(value).lower() if isinstance(value, bool) else str(value)
    return variables
