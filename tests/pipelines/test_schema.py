"""Each pipeline, as it stands and with its templates expanded, fits the published schema; wrong ones are caught."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from infra.settings import PROJECT
from tests.support.pipelines.expansion import expand, load
from tests.support.pipelines.schema import problems

FOLDER = PROJECT / "infra" / "pipelines"
PIPELINES = sorted(FOLDER.glob("*.yml"))
MAIN = {"Build.SourceBranch": "refs/heads/main", "Build.Reason": "IndividualCI"}
PULL = {"Build.SourceBranch": "refs/pull/7/merge", "Build.Reason": "PullRequest"}
TARGETS = ("platform", "test", "acceptance", "production")


def expanded() -> dict[str, Any]:
    """Every pipeline in every form that its parameters and a build's reason give it."""
    ci, cd = FOLDER / "AHImgClassifier-ci.yml", FOLDER / "AHImgClassifier-cd.yml"
    found = {
        "ci-main": expand(ci, {}, MAIN),
        "ci-pull": expand(ci, {}, PULL),
        "ci-untrained": expand(ci, {"train": "false"}, MAIN),
        "cd-told": expand(cd, {}, {"Build.Reason": "ResourceTrigger"}),
        "cd-manual": expand(cd, {"model": "food:7", "environments": ["test"]}, {"Build.Reason": "Manual"}),
        "nightly": expand(FOLDER / "AHImgClassifier-nightly.yml"),
    }
    for target in TARGETS:
        found[f"create-{target}"] = expand(FOLDER / "iac-create-environment-pipeline-arm.yml", {"environment": target})
        found[f"remove-{target}"] = expand(
            FOLDER / "iac-remove-environment-pipeline-arm.yml", {"environment": target, "confirm": target}
        )
    return found


def test_every_pipeline_fits_the_schema_as_it_stands_and_expanded(tmp_path):
    assert problems({path.stem: load(path) for path in PIPELINES}, tmp_path) == {}
    assert problems(expanded(), tmp_path) == {}


def test_nothing_of_a_template_is_left_and_a_pull_request_is_only_checked():
    forms = expanded()
    assert "${{" not in json.dumps(forms)
    assert [stage["stage"] for stage in forms["ci-main"]["stages"]] == ["check", "images", "publish", "train"]
    assert [stage["stage"] for stage in forms["ci-untrained"]["stages"]] == ["check", "images", "publish"]
    assert [stage["stage"] for stage in forms["ci-pull"]["stages"]] == ["check"]
    assert [stage["stage"] for stage in forms["cd-told"]["stages"]] == ["find", "test", "acceptance", "production"]


def step_of(pipeline: Any, task: str) -> Any:
    steps = [step for stage in pipeline["stages"] for job in stage["jobs"] for step in job.get("steps", [])]
    return next(step for step in steps if step.get("task") == task)


MUTATIONS: dict[str, Callable[[Any], Any]] = {
    "misspelled-task": lambda content: step_of(content, "AzureCLI@2").update(task="AzureCLi2@2"),
    "wrong-input": lambda content: step_of(content, "AzureCLI@2")["inputs"].update(scriptKind="bash"),
    "missing-input": lambda content: step_of(content, "AzureCLI@2")["inputs"].pop("azureSubscription"),
    "wrong-value": lambda content: step_of(content, "PublishTestResults@2")["inputs"].update(testResultsFormat="JUnot"),
    "wrong-coverage": lambda content: step_of(content, "PublishCodeCoverageResults@2")["inputs"].update(tool="x"),
    "unknown-key": lambda content: content["stages"][0].update(stepz=[]),
    "no-jobs-name": lambda content: content["stages"][0]["jobs"][0].update(job="not a name!"),
}


def test_wrong_pipelines_are_caught(tmp_path):
    wrong = {}
    for name, change in MUTATIONS.items():
        wrong[name] = expand(FOLDER / "AHImgClassifier-ci.yml", {}, MAIN)
        change(wrong[name])
    assert set(problems(wrong, tmp_path)) == set(MUTATIONS)


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_every_template_and_variables_file_is_used_and_says_what_it_is_for(path):
    texts = {file: file.read_text() for file in FOLDER.rglob("*.yml")}
    assert all(text.startswith("# ") for text in texts.values())
    for file in (FOLDER / "templates").glob("*.yml"):
        assert any(f"{file.name}\n" in text for other, text in texts.items() if other != file), file


def test_a_release_has_the_key_of_the_platforms_own_triggers():
    from tests.support.pipelines.runner import MACRO

    stage = expanded()["cd-told"]["stages"][1]
    steps = stage["jobs"][0]["strategy"]["runOnce"]["deploy"]["steps"]
    key = next(step["script"] for step in steps if step.get("name") == "run").split('--idempotency-key "')[1]
    known = {"keyPrefix": "release", "modelName": "food", "modelVersion": "7"}
    assert MACRO.sub(lambda found: known[found[1]], key.split('"')[0]) == "release-test-food-v7"
    source = (PROJECT / "tasks" / "release" / "release_runs.py").read_text()
    assert 'idempotency_key=f"release-{environment}-{model.name}-v{model.version}"' in source


@pytest.mark.parametrize("environments", [["test"], ["test", "acceptance", "production"]])
def test_each_release_stage_depends_on_the_finding_and_on_all_environments_before_it(environments):
    cd = expand(FOLDER / "AHImgClassifier-cd.yml", {"environments": environments}, {"Build.Reason": "Manual"})
    stages = {stage["stage"]: stage.get("dependsOn") for stage in cd["stages"]}
    assert stages == {
        "find": None,
        **{name: ["find", *environments[:index]] for index, name in enumerate(environments)},
    }


def test_a_run_is_followed_for_less_time_than_a_free_machine_of_microsoft_has():
    jobs = [job for pipeline in expanded().values() for stage in pipeline["stages"] for job in stage["jobs"]]
    assert {str(job["timeoutInMinutes"]) for job in jobs if "ahc trigger" in json.dumps(job)} == {"60"}
    followed = [path.read_text() for path in (FOLDER / "variables").glob("*.yml")]
    followed.append((FOLDER / "AHImgClassifier-ci.yml").read_text())
    seconds = [int(value) for text in followed for value in re.findall(r"Timeout\n(?:\s*#.*\n)?\s*value: (\d+)", text)]
    assert len(seconds) == 4
    assert max(seconds) <= 55 * 60
