"""The expander and the runner themselves, on small pipelines."""

import os
from pathlib import Path

import pytest

from tests.support.pipelines.expansion import expand
from tests.support.pipelines.expressions import WrongExpression, evaluate
from tests.support.pipelines.runner import Agent, Build

TEMPLATE = """
parameters:
  - name: word
    type: string
  - name: loud
    type: boolean
    default: false
steps:
  - script: echo "##vso[task.setvariable variable=said;isOutput=true]${{ parameters.word }}"
    name: say
  - ${{ if parameters.loud }}:
      - script: echo ${{ upper }}
"""


def run(folder: Path, text: str, *, attempt: int = 1, parameters=None, **variables: str) -> Build:
    (folder / "pipeline.yml").write_text(text)
    (folder / "steps.yml").write_text(TEMPLATE.replace("${{ upper }}", "LOUD ${{ parameters.word }}"))
    agent = Agent(
        folder,
        folder / "agent",
        variables=variables,
        groups={"vault": {"api-key": "s3cret"}},
        environment={"PATH": os.environ["PATH"]},
        attempt=attempt,
    )
    return agent.run(expand(folder / "pipeline.yml", parameters, variables))


def test_a_failing_step_fails_its_stage_and_what_depends_on_it_is_skipped(tmp_path):
    build = run(
        tmp_path,
        """
        stages:
          - stage: one
            jobs:
              - job: a
                steps:
                  - script: exit 7
                    displayName: break
                  - script: echo on
                    displayName: next
                  - script: echo cleaned
                    displayName: clean
                    condition: always()
              - job: b
                dependsOn: a
                steps: [{script: echo b}]
              - job: c
                steps: [{script: echo c, displayName: c}]
          - stage: two
            jobs: [{job: d, steps: [{script: echo d}]}]
          - stage: three
            dependsOn: [one]
            condition: failed()
            jobs: [{job: e, steps: [{script: echo e, displayName: e}]}]
        """,
    )
    first = build.stages["one"].jobs
    assert [(step.shown, step.result) for step in first["a"].steps] == [
        ("break", "Failed"),
        ("next", "Skipped"),
        ("clean", "Succeeded"),
    ]
    assert "exit code 7" in first["a"].steps[0].output
    assert [first[name].result for name in "abc"] == ["Failed", "Skipped", "Succeeded"]
    assert [stage.result for stage in build.stages.values()] == ["Failed", "Skipped", "Succeeded"]
    assert build.result == "Failed"


def test_outputs_travel_between_steps_jobs_and_stages_and_templates_take_parameters(tmp_path):
    build = run(
        tmp_path,
        """
        parameters: [{name: words, type: object, default: [yes, no]}]
        stages:
          - stage: one
            jobs:
              - ${{ each word in parameters.words }}:
                  - job: ${{ word }}
                    steps:
                      - template: steps.yml
                        parameters:
                          word: ${{ word }}
                          ${{ if eq(word, 'no') }}:
                            loud: true
                      - script: echo "$(say.said) in the same job"
                        displayName: same
          - stage: two
            variables:
              - name: heard
                value: $[ stageDependencies.one.no.outputs['say.said'] ]
            jobs: [{job: d, steps: [{script: "echo heard $(heard) $HEARD", displayName: other}]}]
        """,
    )
    assert build.step("one", "yes", "same").output == "yes in the same job\n"
    assert [step.shown for step in build.stages["one"].jobs["no"].steps][1] == "echo LOUD no"
    assert build.step("two", "d", "other").output == "heard no no\n"


def test_a_stage_sees_outputs_of_the_stages_that_it_depends_on_and_of_no_other(tmp_path):
    build = run(
        tmp_path,
        """
        stages:
          - stage: find
            jobs:
              - job: find
                steps: [{script: "echo '##vso[task.setvariable variable=said;isOutput=true]yes'", name: say}]
          - stage: near
            variables: &heard
              - {name: heard, value: "$[ stageDependencies.find.find.outputs['say.said'] ]"}
            jobs: [{job: d, steps: [{script: "echo heard $(heard)", displayName: other}]}]
          - stage: far
            variables: *heard
            jobs: [{job: d, steps: [{script: "echo heard $(heard)", displayName: other}]}]
          - stage: named
            dependsOn: [find, far]
            variables: *heard
            jobs: [{job: d, steps: [{script: "echo heard $(heard)", displayName: other}]}]
        """,
    )
    heard = {name: build.step(name, "d", "other").output for name in ("near", "far", "named")}
    assert heard == {"near": "heard yes\n", "far": "heard\n", "named": "heard yes\n"}


def test_secrets_reach_a_script_only_where_they_are_mapped(tmp_path):
    build = run(
        tmp_path,
        """
        variables: [{group: vault}, {name: plain.name, value: open}]
        stages:
          - stage: one
            jobs:
              - job: a
                steps:
                  - {script: 'env | grep -c s3cret', displayName: no}
                  - {script: 'echo $KEY $PLAIN_NAME', displayName: mapped, env: {KEY: $(api-key)}, condition: always()}
        """,
    )
    assert build.step("one", "a", "no").output.startswith("0\n")
    assert build.step("one", "a", "mapped").output == "s3cret open\n"


def test_conditions_of_attempts_and_results_are_heeded_and_an_unknown_command_is_told(tmp_path):
    text = """
        stages:
          - stage: one
            jobs:
              - job: a
                steps:
                  - {script: echo again, displayName: again, condition: "gt(variables['System.StageAttempt'], 1)"}
                  - {script: 'echo "##vso[task.complete result=SucceededWithIssues;]"', displayName: warn}
        """
    assert run(tmp_path, text).step("one", "a", "again").result == "Skipped"
    build = run(tmp_path, text, attempt=2)
    assert build.step("one", "a", "again").result == "Succeeded"
    assert build.result == "SucceededWithIssues"
    with pytest.raises(AssertionError, match="tusk"):
        run(tmp_path, text.replace("task.complete", "tusk.complete"))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("and(succeeded(), eq(variables['a.b'], 'X'))", True),
        ("or(false, not(eq(variables.none, '')))", False),
        ("coalesce(variables.none, 'it''s')", "it's"),
        ("in('b', 'a', 'B')", True),
        ("format('{0}-{1}', 'a', 2)", "a-2"),
        ("iif(true, 1, 2)", WrongExpression),
        ("eq(1, 1) 2", WrongExpression),
        ("parameters.x", WrongExpression),
    ],
)
def test_expressions_are_evaluated_or_refused(expression, value):
    names, functions = {"variables": {"a.b": "x"}}, {"succeeded": lambda: True}
    if value is WrongExpression:
        with pytest.raises(WrongExpression):
            evaluate(expression, names, functions)
    else:
        assert evaluate(expression, names, functions) == value


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("parameters: {word: a, lowd: true}", "lowd"),
        ("parameters: {}", "word"),
        ("parameters: {word: [a]}", "one value"),
    ],
)
def test_a_template_is_given_the_parameters_that_it_has(tmp_path, given, said):
    with pytest.raises(WrongExpression, match=said):
        run(tmp_path, f"stages: [{{stage: a, jobs: [{{job: a, steps: [{{template: steps.yml, {given}}}]}}]}}]")
