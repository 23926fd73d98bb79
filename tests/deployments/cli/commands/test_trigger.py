"""`ahc trigger` against a real server and worker."""

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from deployments.cli.commands.trigger import Trigger
from deployments.cli.main import run
from deployments.runs.follow import follow
from deployments.runs.run_reader import Snapshot, Watch
from deployments.runs.start import Request
from deployments.server.connection import connect
from deployments.server.deploy import deploy_files
from infra.runs.starter_tag import user
from infra.settings import PROJECT, Settings
from tasks.framework.run_starter import who_started
from tests.deployments.conftest import read_until

FLOWS = ("sample", "failing", "unpromoted", "killed_once", "always_killed")


@pytest.fixture(scope="module")
def deployed(prefect_server: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    file = tmp_path_factory.mktemp("trigger") / "prefect.yaml"
    entries = [
        {"name": "t", "entrypoint": f"tests.support.sample_flows.{flow}", "work_pool": {"name": "local"}}
        for flow in FLOWS
    ]
    file.write_text(yaml.safe_dump({"deployments": entries}), encoding="utf-8")
    asyncio.run(deploy_files(prefect_server, file))
    return prefect_server


def ask(settings: Settings, question: Callable[[Any], Any]) -> Any:
    async def answer() -> Any:
        async with connect(settings) as client:
            return await question(client)

    return asyncio.run(answer())


def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", "from deployments.cli.main import main; main()", "trigger", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_states_and_log_lines_of_subflows_and_tasks_come_once_and_in_order(deployed: Settings, capsys: Any) -> None:
    code = run(
        ["trigger", "sample/t", "-p", "data.source=photos", "-p", "data.size.images=30", "-p", "data.size.seconds=0.1"]
    )
    shown = capsys.readouterr().out.splitlines()
    assert code == 0
    # A busy server may have answered an error first, which is told.
    assert any("/v2/runs/flow-run/" in line for line in shown[:3])
    counted = [line.rsplit(" ", 1)[-1] for line in shown if "counted image" in line]
    assert counted == [str(number) for number in range(1, 31)]
    order = [
        next(index for index, line in enumerate(shown) if text in line)
        for text in (
            "sample photos » Running",
            "sample photos | begin",
            "count 30 images » Running",
            "count 30 images | counted image 1",
            "inner of photos | inner says hello to photos",
            "sample photos | end",
        )
    ]
    assert order == sorted(order)
    assert sum("» Running" in line for line in shown) == 3


def trigger_all(capsys: Any, *calls: list[str]) -> tuple[list[dict[str, Any]], str]:
    """Trigger several deployments at once; answers their outcomes in the order of the calls, and what was said."""

    async def together() -> list[int]:
        return await asyncio.gather(
            *(Trigger(as_json=True).start(Request(deployment=name, pairs=tuple(pairs))) for name, *pairs in calls)
        )

    codes = asyncio.run(together())
    captured = capsys.readouterr()
    outcomes = sorted((json.loads(line) for line in captured.out.splitlines()), key=lambda item: item["exit_code"])
    assert [item["exit_code"] for item in outcomes] == sorted(codes)
    return outcomes, captured.err


def test_the_exit_code_is_that_of_the_final_state(deployed: Settings, capsys: Any) -> None:
    outcomes, said = trigger_all(
        capsys, ["unpromoted/t"], ["failing/t"], ["failing/t", "name=SmokeTestFailed"], ["failing/t", "name=Failed"]
    )
    assert [(item["exit_code"], item["state"]) for item in outcomes] == [
        (3, "NotPromoted"),
        (10, "DataRejected"),
        (25, "SmokeTestFailed"),
        (40, "Failed"),
    ]
    assert "Traceback" not in said


def test_a_run_whose_process_is_killed_goes_on_by_itself_but_not_for_ever(
    deployed: Settings, tmp_path: Path, capsys: Any
) -> None:
    (survived, given_up), said = trigger_all(
        capsys, ["killed-once/t", f"marker={tmp_path / 'marker'}"], ["always-killed/t"]
    )
    assert (survived["exit_code"], survived["state"]) == (0, "Completed")
    assert (given_up["exit_code"], given_up["state"]) == (41, "Crashed")
    assert said.count(f"{survived['run']} » Running") == 2
    assert said.count(f"{given_up['run']} » Running") == 4
    # Each death is reported once, however long the crash hooks take.
    assert said.count(f"{given_up['run']} » Crashed") == 4


def test_an_interrupt_cancels_the_run(deployed: Settings) -> None:
    # A person's Ctrl-C, and what an agent of Azure Pipelines sends.
    processes = {
        number: start("sample/t", "-p", "data.source=x", "-p", "data.size.seconds=60", TF_BUILD=in_build)
        for number, in_build in ((signal.SIGINT, "False"), (signal.SIGTERM, "True"))
    }
    for number, process in processes.items():
        shown = read_until(process, "count 2 images » Running")
        process.send_signal(number)
        rest, _ = process.communicate(timeout=180)
        assert process.returncode == 42, shown + rest
        assert ("##vso[task.logissue type=error;]" in rest) == (number == signal.SIGTERM)
        found = re.search(r"/flow-run/([0-9a-f-]{36})", shown)
        assert found is not None
        run_id = UUID(found[1])
        assert ask(deployed, lambda client, wanted=run_id: client.read_flow_run(wanted)).state.is_cancelled()


def test_a_timeout_leaves_the_run_alone(deployed: Settings, capsys: Any) -> None:
    code = run(["trigger", "sample/t", "-p", "data.source=x", "-p", "data.size.seconds=60", "--timeout", "1", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert code == 43
    assert facts["state"] in {"Scheduled", "Pending", "Submitting", "Running"}


def test_a_wrong_parameter_starts_nothing_and_is_named_with_the_nearest(deployed: Settings, capsys: Any) -> None:
    before = len(ask(deployed, lambda client: client.read_flow_runs()))
    assert run(["trigger", "sample/t", "-p", "data.sorce=x", "-p", "data.size.images=many"]) == 20
    error = capsys.readouterr().err
    assert "`data.sorce`; did you mean `data.source`?" in error
    assert len(ask(deployed, lambda client: client.read_flow_runs())) == before


def test_a_wrong_deployment_is_named_with_the_nearest(deployed: Settings, capsys: Any) -> None:
    assert run(["trigger", "sampel/t"]) == 20
    assert "did you mean `sample/t`?" in capsys.readouterr().err


def test_the_same_idempotency_key_is_the_same_run(deployed: Settings, capsys: Any) -> None:
    call = ["trigger", "unpromoted/t", "--idempotency-key", "build-7", "--no-wait", "--json"]
    assert run(call) == 0
    first = json.loads(capsys.readouterr().out)
    assert run([word for word in call if word != "--no-wait"]) == 3
    assert json.loads(capsys.readouterr().out)["run_id"] == first["run_id"]


def test_a_run_knows_who_started_it(deployed: Settings, capsys: Any) -> None:
    assert run(["trigger", "unpromoted/t", "--no-wait", "--json"]) == 0
    started = UUID(json.loads(capsys.readouterr().out)["run_id"])
    assert who_started(ask(deployed, lambda client: client.read_flow_run(started))) == user()


def test_the_task_run_that_stands_for_a_subflow_is_not_told_beside_it(deployed: Settings) -> None:
    """It is there a moment before the subflow is: a look between the two took its states for those of a task."""

    class TooEarly(Watch):
        async def _tree(self, run: Any) -> list[Any]:
            return [run]

    async def scenario(client: Any) -> tuple[Any, ...]:
        from prefect.states import Pending, Running

        from tests.support.sample_flows import count, inner

        parent = await client.create_flow_run(inner, parameters={"name": "x"})
        stands_for = await client.create_task_run(count, parent.id, dynamic_key="0", state=Pending())
        child = await client.create_flow_run(inner, parameters={"name": "y"}, parent_task_run_id=stands_for.id)
        await client.set_flow_run_state(child.id, Running(), force=True)
        return await TooEarly(client, parent.id).rest()

    assert [line.text for line in ask(deployed, scenario)] == ["Pending"]


# In CI three other processes test beside it: there it would measure the machine.
@pytest.mark.long
def test_a_line_is_told_within_two_seconds(deployed: Settings) -> None:
    """By the time stamp that its process gave it; a machine that is busy with other things gets three tries."""

    async def lag(client: Any) -> float:
        deployment = await client.read_deployment_by_name("sample/t")
        given = {"data": {"source": "lag", "size": {"images": 40, "seconds": 4}}}
        started = await client.create_flow_run_from_deployment(deployment.id, parameters=given)
        lags: list[float] = []

        def see(snapshot: Snapshot) -> None:
            lags.extend(time.time() - line.time.timestamp() for line in snapshot.lines if "counted" in line.text)

        await follow(client, started.id, see=see, tell=print)
        assert len(lags) == 40
        return sorted(lags)[38]

    lags: list[float] = []
    while len(lags) < 3 and (not lags or lags[-1] >= 2):
        lags.append(ask(deployed, lag))
    assert min(lags) < 2, lags


def test_a_late_log_line_of_another_process_still_comes_once(deployed: Settings) -> None:
    """Lines arrive in batches: one with an earlier time can come after one with a later time."""

    async def scenario(client: Any) -> list[str]:
        from datetime import UTC, datetime, timedelta

        from prefect.client.schemas.actions import LogCreate

        flow = await client.create_flow_from_name("late")
        deployment = await client.create_deployment(flow, "t", entrypoint="nothing.here", paused=True)
        late = await client.create_flow_run_from_deployment(deployment)
        now = datetime.now(UTC)

        async def write(text: str, seconds: float) -> None:
            time_of = now + timedelta(seconds=seconds)
            await client.create_logs(
                [LogCreate(name="x", level=20, message=text, timestamp=time_of, flow_run_id=late.id)]
            )

        times = itertools.count(0.0, 0.1)
        watch = Watch(client, late.id, clock=times.__next__)
        seen: list[Any] = []
        await write("second", 2)
        seen += (await watch.poll()).lines
        await write("first", 1)
        for _ in range(3):
            seen += (await watch.poll()).lines
        await write("third", 3)
        await write("much too late", -60)
        seen += (await watch.poll()).lines
        seen += await watch.rest()
        return [line.text for line in seen if line.state is None]

    assert ask(deployed, scenario) == ["first", "second", "much too late", "third"]
