"""Logging commands as the agent of Azure Pipelines reads them; `agent_reads` follows its `Command.TryParse`."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from xml.etree import ElementTree as ET

import pytest

from deployments.display.azure_pipelines import Log, command, defused
from deployments.display.build_log import BuildLog
from deployments.display.junit import write_junit
from deployments.display.run_summary import markdown
from deployments.runs.report import Evidence, GateCheck, Report
from deployments.runs.run_reader import Bar, Line, Snapshot
from infra.errors import SmokeTestFailed
from model.faults import Fault
from tasks.framework.failure_card import failure_card


@dataclass(frozen=True)
class Read:
    name: str
    properties: dict[str, str]
    data: str


def agent_reads(line: str) -> Read | None:
    """A line as the agent's `Command.TryParse` reads it; culture-aware, so what can't be seen doesn't count."""
    seen = "".join(character for character in line if character == "\t" or character.isprintable())
    start = seen.casefold().find("##vso[")
    end = seen.find("]", start)
    if start < 0 or end < 0:
        return None
    name, _, given = seen[start + 6 : end].partition(" ")
    pairs = (pair.split("=", 1) for pair in given.split(";") if "=" in pair)
    return Read(name, {key: _unescaped(value) for key, value in pairs}, _unescaped(seen[end + 1 :]))


def _unescaped(text: str) -> str:
    for stands_for, character in (("%3B", ";"), ("%0D", "\r"), ("%0A", "\n"), ("%5D", "]"), ("%AZP25", "%")):
        text = text.replace(stands_for, character)
    return text


@pytest.mark.parametrize("value", ["50 %; done]", "two\r\nlines", "%0A stays", "%AZP25;x=y]", "a=b;c=d"])
def test_a_value_arrives_as_it_was_whatever_it_holds(value: str) -> None:
    line = command("task.setvariable", value, variable="name", note=value)
    assert "\n" not in line
    assert agent_reads(line) == Read("task.setvariable", {"variable": "name", "note": value}, value)


@pytest.mark.parametrize(
    "text",
    [
        "##vso[task.complete result=Succeeded;]done",
        "counted ##vso[task.setvariable variable=PATH]/tmp",
        "##VSO[task.complete]",
        "#\u200b#v\u00adso[task.complete]",
        "one\r##vso[task.complete]\x0b##vso[a.b]\u2028##[endgroup]",
        "\x1b[31m##vso[task.complete]\x1b[0m",
        "#\x00#vso[task.complete]",
        "###vso[task.complete]",
    ],
)
def test_no_text_of_others_is_a_command(text: str) -> None:
    for line in re.split("[\r\n]", defused(text)):
        assert agent_reads(line) is None
        assert not re.match(r"##\[", line)


def test_ordinary_text_stays_as_it_is() -> None:
    assert defused("## Heading [1] #vso[ 100 % ü 漢字") == "## Heading [1] #vso[ 100 % ü 漢字"


@dataclass
class Step:
    name: str
    id: UUID = field(default_factory=uuid4)


class Told:
    """A run with two steps, told line by line."""

    def __init__(self, **options: Any) -> None:
        self.root, self.first, self.second = Step("run"), Step("first"), Step("second")
        self.below = Step("below first")
        self.written: list[str] = []
        self.log = BuildLog(Log(self.written.append), not_promoted_warns=options.get("warns", False))
        self._time = datetime.now(UTC)

    def line(self, step: Step, text: str, level: int = 20, state: Any = None) -> None:
        self._time += timedelta(seconds=1)
        parents = {self.first.id: self.root.id, self.second.id: self.root.id, self.below.id: self.first.id}
        steps: Any = (self.first, self.second, self.below)
        root: Any = self.root
        line = Line(self._time, step.name, text, level, state, step.id)
        self.log.see(Snapshot(root, (root,), steps, (), (line,), parents))

    def ends(self, step: Step) -> None:
        from prefect.states import Completed

        self.line(step, "Completed", state=Completed())

    def shape(self) -> list[str]:
        return [line if line.startswith("##") else line.split(" ", 1)[1] for line in self.written]


def test_steps_are_folded_one_after_another_and_lines_stay_in_order() -> None:
    told = Told()
    told.line(told.root, "begin")
    told.line(told.first, "a")
    told.line(told.below, "b")
    told.ends(told.first)
    told.line(told.first, "Finished")
    told.line(told.second, "c")
    told.ends(told.second)
    told.line(told.root, "end")
    assert told.shape() == [
        "run | begin",
        "##[group]first",
        "first | a",
        "below first | b",
        "first » Completed",
        "first | Finished",
        "##[endgroup]",
        "##[group]second",
        "second | c",
        "second » Completed",
        "##[endgroup]",
        "run | end",
    ]


def test_a_step_beside_another_is_told_within_its_group_and_goes_on_in_its_own() -> None:
    told = Told()
    told.line(told.first, "a")
    told.line(told.second, "b")
    told.ends(told.first)
    told.line(told.second, "c")
    assert told.shape() == [
        "##[group]first",
        "first | a",
        "second | b",
        "first » Completed",
        "##[endgroup]",
        "##[group]second",
        "second | c",
    ]


def test_a_warning_is_an_issue_once_and_no_line_is_lost() -> None:
    told = Told()
    for _ in range(2):
        told.line(told.root, "low on disk", level=30)
    for number in range(20):
        told.line(told.root, f"warning {number}", level=30)
    issues = [read for line in told.written if (read := agent_reads(line))]
    assert len(issues) == 10
    assert {issue.properties["type"] for issue in issues} == {"warning"}
    assert sum("low on disk" in line for line in told.written) == 2
    assert len(told.written) == 22


def test_progress_is_told_when_it_changes() -> None:
    told = Told()
    run: Any = told.root
    for percent in (10.0, 10.2, 55.0):
        bar = Bar(run.id, None, percent, "12 of 30 images")
        told.log.see(Snapshot(run, (run,), (), (bar,), ()))
    reads = [agent_reads(line) for line in told.written]
    assert reads == [Read("task.setprogress", {"value": f"{value}"}, "12 of 30 images") for value in (10, 55)]


GATES = (
    GateCheck(gate="verdict", check="accuracy | macro", passed=True, value=0.9, limit=0.8, detail="0.9 of 1"),
    GateCheck(gate="smoke-test-test", check="latency", passed=False, detail="latency: 900 ms \x00 <b>"),
)


FAULT = Fault.of(SmokeTestFailed("latency: 900 ms", next_step="what to do"), where="Smoke test", evidence=("a line",))


def a_report(**given: Any) -> Report:
    facts: dict[str, Any] = {
        "deployment": "release/test",
        "run_id": "1234567890",
        "run": "release food v3",
        "state_type": "FAILED",
        "state": "SmokeTestFailed",
        "message": "latency: 900 ms",
        "started": datetime(2026, 11, 24, 17, tzinfo=UTC),
        "seconds": 12.5,
        "link": "http://server/v2/runs/flow-run/1234567890",
        "exit_code": 25,
        "evidence": Evidence(model_name="food", model_version=3, gates=GATES, fault=FAULT),
    }
    return Report(**(facts | given))


def test_junit_holds_the_gates_as_tests_and_the_fault_as_an_error(tmp_path: Any) -> None:
    file = tmp_path / "results" / "gates.xml"
    write_junit(a_report(), file)
    root = ET.parse(file).getroot()
    suites = root.findall("testsuite")
    assert (root.tag, len(suites)) == ("testsuites", 1)
    (suite,) = suites
    cases = suite.findall("testcase")
    assert suite.get("timestamp") == "2026-11-24T17:00:00"
    for holder in (root, suite):
        assert [holder.get(name) for name in ("tests", "failures", "errors", "skipped", "time")] == [
            "3",
            "1",
            "1",
            "0",
            "12.500",
        ]
    for case in cases:
        assert case.get("name")
        assert case.get("classname")
        assert float(case.get("time") or "x") >= 0
        assert len(case) <= 1
    error, failure = suite.find("testcase/error"), suite.find("testcase/failure")
    assert error is not None
    assert failure is not None
    assert error.text == failure_card(FAULT, "1234567890")
    assert "**What to do.** what to do" in error.text
    assert failure.get("message") == "latency: 900 ms \ufffd <b>"


def test_a_model_that_is_not_promoted_fails_its_gate_and_nothing_else(tmp_path: Any) -> None:
    write_junit(a_report(state_type="COMPLETED", state="NotPromoted", exit_code=3), tmp_path / "gates.xml")
    suite = ET.parse(tmp_path / "gates.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")


def test_the_summary_of_a_failed_run_shows_its_gates_its_card_and_its_link() -> None:
    page = markdown(a_report())
    assert page.startswith("# release food v3: SmokeTestFailed.")
    assert "| **FAILED** | smoke-test-test | latency |" in page
    assert "| passed | verdict | accuracy \\| macro | 0.9 | 0.8 |" in page
    assert "[release food v3](http://server/v2/runs/flow-run/1234567890)" in page
    assert failure_card(FAULT, "1234567890") in page
