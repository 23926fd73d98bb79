"""`deployments/devops.yaml`: the shipped one, and what people write wrong."""

import re

import pytest

from infra.azure_devops.project_file import Group, Pipeline, ProjectFile, read_project_file
from infra.errors import ConfigurationError
from infra.settings import PROJECT

FILE = PROJECT / "deployments" / "devops.yaml"
WHOLE = "project: P\nrepository: R\napprovers: [x]\npipelines:\n  ci: {file: ci.yml}\n"


def test_the_shipped_file_names_nobodys_organisation():
    assert read_project_file(FILE).organisation is None


def test_every_key_is_in_the_document():
    text = (PROJECT / "docs" / "devops.md").read_text(encoding="utf-8")
    table = text.split("The keys of `deployments/devops.yaml`:")[1].split("\n\nNot made")[0]
    documented = set(re.findall(r"`((?:groups|pipelines)\.NAME\.\w+|\w+)`", "\n".join(table.splitlines())))
    real = set(ProjectFile.model_fields) - {"groups", "pipelines"}
    real |= {f"groups.NAME.{key}" for key in Group.model_fields}
    real |= {f"pipelines.NAME.{key}" for key in Pipeline.model_fields}
    assert real <= documented


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("projekt: x\n" + WHOLE, "unknown key `projekt`: did you mean `project`"),
        (WHOLE.replace("file:", "fil:"), "did you mean `file`"),
        (WHOLE + "groups: {g: {variables: {A: b}, secrets: [c]}}\n", "either `variables` or `secrets`"),
        (WHOLE + "groups: {g: {}}\n", "either `variables` or `secrets`"),
        (WHOLE + "organisation: http://dev.azure.com/contoso\n", "like https://dev.azure.com/NAME"),
        (WHOLE + "platform: {aproval: true}\n", "did you mean `approval`"),
        ("- a list\n", "expected keys and values"),
        ("a: [\n", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_the_file_and_the_nearest_word(tmp_path, text, said):
    path = tmp_path / "devops.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        read_project_file(path)
    assert str(path) in str(refused.value)
    assert said in str(refused.value)


def test_an_option_wins_over_the_file():
    assert read_project_file(FILE, organisation="https://dev.azure.com/contoso/", project="Other") == read_project_file(
        FILE
    ).model_copy(update={"organisation": "https://dev.azure.com/contoso", "project": "Other"})
