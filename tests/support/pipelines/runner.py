"""Runs an expanded pipeline on this machine as an agent of Azure Pipelines would, one job after the other.

Scripts are real. What Azure DevOps itself does is not there: `REPLACED` lists each task with what stands in for it.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.support.pipelines.expansion import Script
from tests.support.pipelines.expressions import as_text, evaluate, is_true
from tests.support.pipelines.stand_ins import REPLACED

MACRO: Final = re.compile(r"\$\(([\w.-]+)\)")
COMMAND: Final = re.compile(r"^##vso\[(?P<area>\w+\.\w+)(?P<properties>[^\]]*)\](?P<value>.*)$")
ESCAPES: Final = {"%0D": "\r", "%0A": "\n", "%5D": "]", "%3B": ";", "%AZP25": "%"}
GOOD: Final = ("Succeeded", "SucceededWithIssues")
KNOWN_COMMANDS: Final = frozenset(
    {"task.logissue", "task.setprogress", "task.uploadsummary", "task.addattachment", "build.addbuildtag"}
)
"""Those that only show something in Azure DevOps."""


@dataclass
class StepRun:
    """One step and what became of it."""

    name: str
    shown: str
    result: str
    script: Script | None = None
    """As it was written, where it is a script."""
    output: str = ""
    commands: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)


@dataclass
class JobRun:
    """One job."""

    name: str
    result: str = "Skipped"
    steps: list[StepRun] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    environment: str = ""

    def step(self, shown: str) -> StepRun:
        return next(step for step in self.steps if step.shown == shown)


@dataclass
class StageRun:
    """One stage."""

    name: str
    result: str = "Skipped"
    jobs: dict[str, JobRun] = field(default_factory=dict)


@dataclass
class Build:
    """A pipeline that was run."""

    stages: dict[str, StageRun] = field(default_factory=dict)

    @property
    def result(self) -> str:
        return _worst(stage.result for stage in self.stages.values())

    def step(self, stage: str, job: str, shown: str) -> StepRun:
        return self.stages[stage].jobs[job].step(shown)

    @property
    def steps(self) -> list[StepRun]:
        return [step for stage in self.stages.values() for job in stage.jobs.values() for step in job.steps]

    @property
    def told(self) -> str:
        """Everything for the message of a test."""
        return "\n".join(f"--- {step.shown}: {step.result} {step.inputs}\n{step.output}" for step in self.steps)


class Agent:
    """An agent with a checkout.

    Args:
        sources: The checkout, where scripts run.
        folder: For temporary files.
        variables: Of the build, such as Build.Reason; they win over what the pipeline sets, as those that a person
            gives when a build is queued.
        groups: By name, the variables of a group; all are secrets.
        environment: Of its processes.
        attempt: Which run of each stage this is.
        signed_in: What AzureCLI@2 adds to the environment of its script.
    """

    def __init__(
        self,
        sources: Path,
        folder: Path,
        *,
        variables: Mapping[str, str],
        groups: Mapping[str, Mapping[str, str]],
        environment: Mapping[str, str],
        attempt: int = 1,
        signed_in: Mapping[str, str] | None = None,
    ) -> None:
        self.sources = sources
        self._folder = folder
        self._groups = groups
        self._environment = environment
        self._signed_in = signed_in or {}
        self._given = {
            "System.StageAttempt": str(attempt),
            "System.AccessToken": "a-token-of-the-job",
            "Build.SourcesDirectory": str(sources),
            "Agent.OS": "Linux",
            "TF_BUILD": "True",
            **variables,
        }

    def run(self, pipeline: Mapping[str, Any]) -> Build:
        """All stages in their order."""
        build = Build()
        before: str | None = None
        for stage in pipeline["stages"]:
            name = stage["stage"]
            needs = stage.get("dependsOn", [before] if before else [])
            needs = [needs] if isinstance(needs, str) else needs
            run = build.stages[name] = StageRun(name)
            results = [build.stages[need].result for need in needs if need]
            names = {"variables": self._given, "dependencies": _results(build.stages)}
            if is_true(evaluate(stage.get("condition", "succeeded()"), names, _status(results))):
                self._stage(pipeline, stage, run, build, [need for need in needs if need])
            before = name
        return build

    def _stage(
        self, pipeline: Mapping[str, Any], stage: Mapping[str, Any], run: StageRun, build: Build, needs: list[str]
    ) -> None:
        seen = {name: other for name, other in build.stages.items() if name in needs}
        for job in stage["jobs"]:
            name = job.get("job") or job["deployment"]
            before = job.get("dependsOn", [])
            before = [before] if isinstance(before, str) else before
            done = run.jobs[name] = JobRun(name, environment=job.get("environment", ""))
            written = [place.get("variables", []) for place in (pipeline, stage, job)]
            variables, secrets = self._variables(written, seen, run)
            variables |= {"System.StageName": run.name, "System.JobName": name}
            results = [run.jobs[need].result for need in before]
            names = {"variables": variables, "dependencies": _results(run.jobs)}
            if is_true(evaluate(job.get("condition", "succeeded()"), names, _status(results))):
                steps = job.get("steps") or job["strategy"]["runOnce"]["deploy"]["steps"]
                folder = self._folder / run.name / name
                _JobRunner(self, folder, variables, secrets, done).run(steps)
        run.result = _worst(job.result for job in run.jobs.values())

    def _variables(
        self, written: list[Any], seen: Mapping[str, StageRun], stage: StageRun
    ) -> tuple[dict[str, str], set[str]]:
        """What a job knows at its start, and which of it is secret.

        Of other stages it knows those alone that its own depends on by name, or by following them (learn.microsoft.com,
        "Expressions", on dependencies).
        """
        names = {
            "stageDependencies": {
                name: {job.name: {"outputs": job.outputs, "result": job.result} for job in other.jobs.values()}
                for name, other in seen.items()
            },
            "dependencies": _results(stage.jobs),
        }
        found: dict[str, str] = {}
        secrets = {"System.AccessToken"}
        for item in (item for items in written for item in items):
            if "group" in item:
                found |= self._groups[item["group"]]
                secrets |= set(self._groups[item["group"]])
                continue
            value = item["value"]
            runtime = re.fullmatch(r"\$\[(.*)\]", value, re.DOTALL)
            found[item["name"]] = as_text(evaluate(runtime[1], {**names, "variables": found})) if runtime else value
        return {**found, **self._given}, secrets

    def environment(self, variables: Mapping[str, str], secrets: set[str]) -> dict[str, str]:
        """Every variable that is no secret reaches a script by itself."""
        shown = {name: value for name, value in variables.items() if name not in secrets}
        return {**self._environment, **{re.sub(r"[ .]", "_", name).upper(): value for name, value in shown.items()}}

    @property
    def signed_in(self) -> dict[str, str]:
        return dict(self._signed_in)


class _JobRunner:
    """The steps of one job."""

    def __init__(self, agent: Agent, folder: Path, variables: dict[str, str], secrets: set[str], run: JobRun) -> None:
        self._agent, self._variables, self._secrets, self._run = agent, variables, secrets, run
        self._path: list[str] = []
        for name in ("temp", "artifacts", "workspace"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._variables |= {
            "Agent.TempDirectory": str(folder / "temp"),
            "Build.ArtifactStagingDirectory": str(folder / "artifacts"),
            "Pipeline.Workspace": str(folder / "workspace"),
        }

    def run(self, steps: list[dict[str, Any]]) -> None:
        self._run.result = "Succeeded"
        for step in steps:
            done = self._step(step)
            self._run.steps.append(done)
            if done.result not in ("Skipped", *GOOD):
                self._run.result = "Failed"
            elif done.result == "SucceededWithIssues" and self._run.result == "Succeeded":
                self._run.result = done.result

    def _step(self, step: dict[str, Any]) -> StepRun:
        kind = next(iter(step))
        shown = self._filled(step.get("displayName", f"{kind} {step[kind]}" if kind != "script" else step[kind]))
        done = StepRun(step.get("name", ""), shown, "Skipped")
        condition = step.get("condition", "succeeded()")
        if not is_true(evaluate(condition, {"variables": self._variables}, _status([self._run.result]))):
            return done
        if kind == "script":
            self._script(step["script"], step.get("env", {}), done)
        elif kind == "task" and step["task"] == "AzureCLI@2":
            inputs = step["inputs"]
            assert (inputs["scriptType"], inputs["scriptLocation"]) == ("bash", "inlineScript")
            done.inputs = {"azureSubscription": inputs["azureSubscription"]}
            self._script(inputs["inlineScript"], {**step.get("env", {}), **self._agent.signed_in}, done)
        else:
            stand_in = REPLACED[step["task"] if kind == "task" else kind]
            given = step.get("inputs", {}) if kind == "task" else step
            done.inputs = {name: self._filled(value) for name, value in given.items()}
            done.output = stand_in(done.inputs, self._agent.sources) or ""
            done.result = "Failed" if done.output else "Succeeded"
        return done

    def _script(self, script: Script, env: Mapping[str, str], done: StepRun) -> None:
        done.script = script
        # An agent fills the macros in the values of variables too.
        variables = {name: self._filled(value) for name, value in self._variables.items()}
        environment = self._agent.environment(variables, self._secrets)
        environment |= {name: self._filled(value) for name, value in env.items()}
        environment["PATH"] = os.pathsep.join([*self._path, environment["PATH"]])
        # The agent's bash task stops at no failed command but the last.
        ran = subprocess.run(
            ["bash", "--noprofile", "--norc", "-c", self._filled(script)],
            cwd=self._agent.sources,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        done.output = ran.stdout
        done.result = "Failed" if ran.returncode else "Succeeded"
        for line in ran.stdout.splitlines():
            if line.startswith("##vso["):
                self._command(line, done)
        if ran.returncode:
            done.output += f"\n(exit code {ran.returncode})"

    def _command(self, line: str, done: StepRun) -> None:
        """A logging command: https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands."""
        found = COMMAND.match(line)
        assert found, line
        pairs = (part.split("=", 1) for part in found["properties"].strip().split(";") if part)
        properties = {name: _unescaped(value) for name, value in pairs}
        value = _unescaped(found["value"])
        done.commands.append((found["area"], properties, value))
        if found["area"] == "task.setvariable":
            self._set(properties, value, done.name)
        elif found["area"] == "task.prependpath":
            self._path.insert(0, value)
        elif found["area"] == "task.complete":
            done.result = properties["result"] if done.result in GOOD else done.result
        elif found["area"] == "task.uploadsummary":
            assert Path(value).read_text(encoding="utf-8").strip(), line
        else:
            assert found["area"] in KNOWN_COMMANDS, line

    def _set(self, properties: Mapping[str, str], value: str, step: str) -> None:
        name = properties["variable"]
        if properties.get("issecret", properties.get("isSecret", "")).lower() == "true":
            self._secrets.add(name)
        if properties.get("isOutput", properties.get("isoutput", "")).lower() == "true":
            assert step, f"{name} is an output of a step without a name"
            self._run.outputs[f"{step}.{name}"] = value
            name = f"{step}.{name}"
        self._variables[name] = value

    def _filled(self, text: str) -> str:
        """With its macros; of a name that isn't known, the macro stays as it is."""
        known = {name.lower(): value for name, value in self._variables.items()}
        for _ in range(5):
            filled = MACRO.sub(lambda found: known.get(found[1].lower(), found[0]), text)
            if filled == text:
                break
            text = filled
        return text


def _unescaped(text: str) -> str:
    for escaped, plain in ESCAPES.items():
        text = text.replace(escaped, plain)
    return text


def _status(results: list[str]) -> dict[str, Callable[..., bool]]:
    """The functions of conditions that ask what was before."""
    failed = any(result in ("Failed", "Canceled") for result in results)
    return {
        "succeeded": lambda: all(result in GOOD for result in results),
        "failed": lambda: failed,
        "succeededOrFailed": lambda: "Canceled" not in results,
        "always": lambda: True,
        "canceled": lambda: "Canceled" in results,
    }


def _results(runs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"result": run.result, "outputs": getattr(run, "outputs", {})} for name, run in runs.items()}


def _worst(results: Iterator[str]) -> str:
    found = list(results)
    return next((word for word in ("Failed", "SucceededWithIssues", "Succeeded") if word in found), "Skipped")
