"""What people see while a lifecycle runs and when it ended."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from rich.console import Console

from deployments.display.lifecycle_end import as_summary, failure_view, summary_view
from deployments.display.plain_log import Heartbeat
from deployments.display.terminal_tree import LiveDisplay, PlainDisplay, step_rows
from deployments.runs.run_reader import Bar, Snapshot
from infra.settings import Settings
from model.data.manifest import DataVersion
from tasks.lifecycle_summary import Accuracy, Check, RegisteredModel, Step, Summary

BEGAN = datetime.now(UTC) - timedelta(seconds=30)


def snapshot(*, training: str = "RUNNING", percent: float = 25.0) -> Snapshot:
    """A lifecycle with one reused step and one subflow in which a step runs."""
    from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun

    def state(kind: str, name: str) -> Any:
        return State(type=StateType(kind), name=name)

    ids = [UUID(int=number) for number in range(1, 5)]
    root = FlowRun(id=ids[0], flow_id=uuid4(), name="lifecycle food", state=state("RUNNING", "Running"))
    below = FlowRun(
        id=ids[1],
        flow_id=uuid4(),
        name="training food",
        state=state("RUNNING", "Running"),
        start_time=BEGAN + timedelta(seconds=5),
    )
    known = {"task_key": "t", "dynamic_key": "0"}
    manifest = TaskRun(
        id=ids[2],
        flow_run_id=root.id,
        name="manifest of food",
        state=state("COMPLETED", "Cached"),
        start_time=BEGAN,
        end_time=BEGAN + timedelta(seconds=2),
        **known,
    )
    train = TaskRun(
        id=ids[3],
        flow_run_id=below.id,
        name="train food",
        state=state(training, training.capitalize()),
        start_time=BEGAN + timedelta(seconds=6),
        **known,
    )
    bar = Bar(below.id, train.id, percent, f"Epoch {percent:.0f}")
    return Snapshot(root, (root, below), (train, manifest), (bar,), (), {below.id: root.id})


def test_steps_are_a_tree_in_the_order_of_their_start() -> None:
    rows = step_rows(snapshot())
    assert [(row.depth, row.name, row.reused) for row in rows] == [
        (0, "manifest of food", True),
        (0, "training food", False),
        (1, "train food", False),
    ]


def test_without_a_terminal_each_step_is_a_line_when_it_starts_and_when_it_ends(capsys: Any) -> None:
    shown = PlainDisplay()
    for now in (snapshot(), snapshot(percent=26), snapshot(training="COMPLETED", percent=100), snapshot(percent=100)):
        shown.see(now)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "↺ manifest of food (2.0 s) reused"
    assert lines[1:3] == ["… training food", "  … train food"]
    assert [line for line in lines if "Epoch" in line] == ["  … train food: 26 % Epoch 26"]
    assert any(line.startswith("  ✓ train food") for line in lines)


def test_on_a_terminal_steps_have_state_seconds_bar_and_what_was_reused() -> None:
    out = io.StringIO()
    with LiveDisplay(Console(file=out, force_terminal=True, width=120)) as live:
        live.see(snapshot(percent=40))
    last = out.getvalue().splitlines()
    assert any("manifest of food" in line and "reused" in line for line in last)
    assert any("train food" in line and "40 %" in line and "Epoch 40" in line and "━" in line for line in last)


@pytest.fixture
def summary() -> Summary:
    data = DataVersion(
        name="food",
        version="0123456789abcdef",
        manifest_uri="m",
        source_uri="s",
        images=3,
        labels=("a", "b"),
        counts={"a": {"train": 1}, "b": {"test": 2}},
    )
    model = RegisteredModel(name="food", version=7, digest="d" * 64, uri="u", created=BEGAN)
    return Summary(
        verdict="promote",
        reason="Better.",
        checks=(Check(name="accuracy above the floor", value=0.91, limit=0.8, passed=True, detail="on 48 images"),),
        accuracy=Accuracy(value=0.91, low=0.85, high=0.96),
        model=model,
        data=data,
        endpoints={"test": "http://127.0.0.1:8081"},
        tracking_link="http://127.0.0.1:5000/#/x",
        reports={"data": "/r/data.html"},
        steps=(Step(name="training", seconds=60, reused_from="lifecycle food v6", detail="8 epochs"),),
    )


def text(view: Any) -> str:
    console = Console(width=100, record=True, file=io.StringIO(), soft_wrap=True)
    console.print(view)
    return console.export_text()


def test_the_summary_has_verdict_evidence_call_links_and_what_was_reused(summary: Summary, tmp_path: Path) -> None:
    link = "http://127.0.0.1:4200/v2/runs/flow-run/1"
    shown = text(summary_view(summary, Settings(home=tmp_path), link))
    for expected in (
        "promote  food v7: Better.",
        "0.910 (95 % interval 0.850 to 0.960)",
        "accuracy above the floor",
        "on 48 images",
        "reused from lifecycle food v6",
        f"curl -H @{tmp_path}/secrets/test.header",
        "http://127.0.0.1:8081/score",
        link,
        summary.tracking_link,
        "/r/data.html",
    ):
        assert expected in shown
    assert "Bearer" not in shown


def test_a_stored_summary_is_read_back(summary: Summary) -> None:
    assert as_summary(summary.model_dump(mode="json")) == summary
    assert as_summary(3) is None


def test_a_failure_shows_its_card_or_else_where_to_look() -> None:
    assert "Do this next" in text(failure_view("DataRejected", "m", "# Card\n\nDo this next", "link", "/logs"))
    without = text(failure_view("Crashed", "The process was killed.", None, "link", "/logs"))
    assert "The process was killed." in without
    assert "/logs" in without


def test_a_run_that_no_worker_takes_is_told_as_that() -> None:
    from prefect.client.schemas.objects import FlowRun
    from prefect.states import Late

    told: list[str] = []
    late = FlowRun(flow_id=uuid4(), name="training food", state=Late(), work_pool_name="aks-gpu")
    Heartbeat(told.append, silence=0).see(Snapshot(late, (late,), (), (), ()))
    assert told == [
        "training food is still Late: no worker of the work pool `aks-gpu` takes it; see docs/runbook.md#late."
    ]
