"""The documents say what the code does: every command, option, setting, error and exit code, and nothing else."""

import inspect
import re
import shlex
from pathlib import Path

import pytest
import typer
from pydantic_core import PydanticUndefined

from deployments.cli.flow_catalogue import entrypoints, load_flow
from deployments.cli.main import COMMANDS, DATA_COMMANDS, DEVOPS_COMMANDS, app
from infra.config.environments import AzureTarget, Environment
from infra.config.gates import Canary, Gates, Shadow, Watch
from infra.config.trainers import AzureMlTarget, KubernetesTarget, TrainerFile
from infra.settings import PROJECT, Settings
from tasks.framework.error_table import ERRORS, OUTCOMES, runbook

COMMANDS_MD = (PROJECT / "docs" / "commands.md").read_text(encoding="utf-8")
RUNBOOK_MD = (PROJECT / "docs" / "runbook.md").read_text(encoding="utf-8")
AZURE_MD = (PROJECT / "docs" / "azure.md").read_text(encoding="utf-8")
NAMES = [*COMMANDS, *(f"data {name}" for name in DATA_COMMANDS), *(f"devops {name}" for name in DEVOPS_COMMANDS)]
DOCUMENTS = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]
UNNAMED_CODES = {1: "Unexpected error", 2: "UsageError", 130: "Interrupted"}


def rows(heading: str) -> list[list[str]]:
    section = COMMANDS_MD.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def sections() -> dict[str, str]:
    """The runbook's sections by anchor, as GitHub makes them from headings."""
    parts = re.split(r"^#{2,3} (.+)$", RUNBOOK_MD, flags=re.MULTILINE)[1:]
    return {anchor(title): text for title, text in zip(parts[::2], parts[1::2], strict=True)}


def anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def command(name: str):
    group = typer.main.get_command(app)
    for part in name.split():
        group = group.get_command(typer.Context(group), part)
    return group


def options(name: str) -> set[str]:
    parameters = command(name).params
    return {flag for item in parameters for flag in (*item.opts, *item.secondary_opts) if flag.startswith("-")}


def test_every_exit_code_is_in_the_table_and_unique():
    table = {int(code): name for code, name, _ in rows("Exit codes")}
    assert len(table) == len(rows("Exit codes"))
    known = {error.exit_code: name for name, error in ERRORS.items()}
    assert len(known) == len(ERRORS), "two errors share an exit code"
    assert table == {**UNNAMED_CODES, **{code: name for name, code in OUTCOMES.items()}, **known}


def test_every_setting_is_in_the_table_with_its_default():
    table = {name.strip("`"): default.strip("`") for name, default, _ in rows("Settings")}
    assert set(table) == {f"AHC_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if not isinstance(field.default, Path):
            assert table[f"AHC_{name.upper()}"] == str(field.default)


def test_every_command_is_in_the_table_with_its_options():
    table = {}
    for usage, _ in rows("Commands"):
        words = usage.strip("`").removeprefix("ahc ")
        name = next(name for name in sorted(NAMES, key=len, reverse=True) if words.startswith(name))
        table[name] = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", words))
    assert set(table) == set(NAMES)
    for name, documented in table.items():
        # The opposite of a flag need not be named, and help goes without saying.
        real = options(name) - {"--help"} - {flag for flag in options(name) if flag.startswith("--no-")}
        assert {flag for flag in documented if not flag.startswith("--no-")} == real, name


@pytest.mark.parametrize("name", [*ERRORS, *OUTCOMES, "Late", "WaitingRelease", "Bugs"])
def test_every_way_to_end_has_a_section_in_the_runbook(name):
    if name == "Completed":
        return
    section = sections().get(runbook(name).partition("#")[2])
    assert section is not None, f"docs/runbook.md has no section for {name}"
    code = ERRORS[name].exit_code if name in ERRORS else OUTCOMES.get(name)
    assert code is None or f"Exit code {code}" in section


def anchors(document: Path) -> set[str]:
    titles = re.findall(r"^#{1,6} (.+)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {anchor(title) for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, wanted = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not wanted or wanted in anchors(target), link


def test_every_flow_is_in_the_table_with_its_parameters_and_those_it_needs():
    table: dict[str, set[str]] = {}
    needed: dict[str, set[str]] = {}
    flow = ""
    for name, parameters, _ in rows("Flows and their parameters"):
        flow = name.strip("`") or flow
        table.setdefault(flow, set()).update(re.findall(r"`(\w+)`", parameters))
        needed.setdefault(flow, set()).update(re.findall(r"\*\*`(\w+)`\*\*", parameters))
    signatures = {name: inspect.signature(load_flow(name).fn).parameters for name in entrypoints()}
    assert table == {name: set(found) for name, found in signatures.items()}
    assert needed == {
        name: {item.name for item in found.values() if item.default is item.empty} for name, found in signatures.items()
    }


def keys_and_defaults(heading: str) -> dict[str, str]:
    table: dict[str, str] = {}
    for keys, default, _ in rows(heading):
        names = [name.strip(" `") for name in keys.split(",")]
        defaults = [value.strip(" `") for value in default.split(",")]
        table |= dict(zip(names, defaults * len(names) if len(defaults) == 1 else defaults, strict=True))
    return table


def test_every_key_of_a_trainer_file_is_in_the_table_with_its_default():
    table = keys_and_defaults("Trainer files")
    models = {"": TrainerFile, "kubernetes.": KubernetesTarget, "azure_ml.": AzureMlTarget}
    fields = {prefix + name: field for prefix, model in models.items() for name, field in model.model_fields.items()}
    known = {name: field.default for name, field in fields.items() if name not in {"kubernetes", "azure_ml"}}
    assert set(table) == set(known)
    for name, default in known.items():
        assert table[name] == ("" if default is PydanticUndefined else str(default)), name


def test_every_key_of_an_environment_file_is_in_the_table_with_its_default():
    table = keys_and_defaults("Environment files")
    models = {
        "": Environment,
        "gates.": Gates,
        "gates.shadow.": Shadow,
        "gates.canary.": Canary,
        "gates.watch.": Watch,
        "azure.": AzureTarget,
    }
    fields = {prefix + name: field for prefix, model in models.items() for name, field in model.model_fields.items()}
    known = {name: field.default for name, field in fields.items() if name not in {"gates", "azure"}}
    assert set(table) == set(known)
    for name, default in known.items():
        if default is not None and default is not PydanticUndefined:
            assert table[name] == str(default).lower(), name


def shown_commands() -> list[str]:
    """Every `ahc ...` of the documents outside the table of commands, from code blocks and inline code."""
    text = RUNBOOK_MD + AZURE_MD + COMMANDS_MD.split("## Exit codes")[0].split("Parameters:")[1]
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return sorted({line for line in (*lines, *inline) if line.startswith("ahc ")})


@pytest.mark.parametrize("line", shown_commands())
def test_every_shown_command_exists_with_its_options(line):
    words = shlex.split(line, comments=True)[1:]
    if words == ["COMMAND", "--help"]:
        return
    name = next(
        (name for name in sorted(NAMES, key=len, reverse=True) if words[: len(name.split())] == name.split()), None
    )
    assert name is not None, line
    assert {word for word in words if word.startswith("-")} <= options(name), line


def test_every_problem_of_the_scoring_api_has_a_section_with_its_status():
    from model.serving.http.problems import KINDS

    for kind, facts in KINDS.items():
        assert f"{facts.status.value}." in sections()[kind]
