"""`ahc trigger` as a step of Azure Pipelines, against a real server and worker."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import yaml
from PIL import Image

from deployments.cli.commands.trigger import NotPromoted, Trigger
from deployments.cli.main import run
from deployments.runs.decisions import Approvals
from deployments.runs.start import Request
from deployments.server.connection import connect
from deployments.server.deploy import deploy_files
from infra.local.platform.prefect_settings import use_prefect
from infra.settings import Settings
from tests.deployments.display.test_azure_pipelines import Read, agent_reads

pytestmark = pytest.mark.thorough

FLOWS = ("sample", "judged", "faulty", "fails_once", "crashing")
ENTRYPOINTS = (
    *(f"tests.support.sample_flows.{flow}" for flow in FLOWS),
    "tests.support.operations_flows.decided",
    "flows.data_validation.data_validation",
)


@pytest.fixture(scope="module")
def deployed(prefect_server: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    file = tmp_path_factory.mktemp("pipeline") / "prefect.yaml"
    entries = [{"name": "t", "entrypoint": entrypoint, "work_pool": {"name": "local"}} for entrypoint in ENTRYPOINTS]
    file.write_text(yaml.safe_dump({"deployments": entries}), encoding="utf-8")
    asyncio.run(deploy_files(prefect_server, file))
    return prefect_server


@pytest.fixture(autouse=True)
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What an agent of Azure Pipelines says in the environment of a step."""
    monkeypatch.setenv("TF_BUILD", "True")
    monkeypatch.setenv("AGENT_TEMPDIRECTORY", str(tmp_path))


def reads(out: str) -> list[Read]:
    return [read for line in out.splitlines() if (read := agent_reads(line))]


def issues(out: str, kind: str) -> list[str]:
    return [read.data for read in reads(out) if read.name == "task.logissue" and read.properties["type"] == kind]


def variables(out: str) -> dict[str, str]:
    found = [read for read in reads(out) if read.name == "task.setvariable"]
    assert all(read.properties["isOutput"] == "true" for read in found)
    return {read.properties["variable"]: read.data for read in found}


def test_a_build_shows_the_verdict_and_hands_on_what_it_is_about(
    deployed: Settings, capsys: Any, tmp_path: Path
) -> None:
    junit, summary = tmp_path / "gates.xml", tmp_path / "summary.md"
    assert run(["trigger", "judged/t", "--junit", str(junit), "--summary", str(summary)]) == 0
    out = capsys.readouterr().out
    told = variables(out)
    assert {name: told[name] for name in ("state", "exitCode", "modelName", "modelVersion", "verdict")} == {
        "state": "Completed",
        "exitCode": "0",
        "modelName": "food",
        "modelVersion": "3",
        "verdict": "promote",
    }
    assert told["runUrl"].endswith(told["runId"])
    assert issues(out, "error") == []
    assert len(issues(out, "warning")) == 1
    (uploaded,) = [read.data for read in reads(out) if read.name == "task.uploadsummary"]
    assert Path(uploaded).is_absolute()
    page = Path(uploaded).read_text()
    assert page == summary.read_text()
    for text in ("**food v3**: promote", "| passed | verdict | accuracy | 0.9 | 0.8 |", "live in test", told["runUrl"]):
        assert text in page
    suite = ET.parse(junit).getroot()[0]
    assert [case.get("name") for case in suite.iter("testcase")] == [
        "run of judged/t",
        "verdict: accuracy",
        "smoke-test-test: smoke test",
    ]
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")


def test_a_model_that_is_not_promoted_is_a_success_a_warning_or_a_failure(deployed: Settings, capsys: Any) -> None:
    async def together() -> list[int]:
        request = Request(deployment="judged/t", pairs=("outcome=reject",))
        return await asyncio.gather(*(Trigger(not_promoted=choice).start(request) for choice in NotPromoted))

    assert asyncio.run(together()) == [0, 0, 3]
    out = capsys.readouterr().out
    (completed,) = [read for read in reads(out) if read.name == "task.complete"]
    assert completed.properties == {"result": "SucceededWithIssues"}
    (error,) = issues(out, "error")
    assert "NotPromoted. The champion is better." in error
    assert sum("The champion is better." in warning for warning in issues(out, "warning")) == 1


def test_a_failed_run_is_one_error_with_its_failure_card(deployed: Settings, capsys: Any, tmp_path: Path) -> None:
    junit = tmp_path / "gates.xml"
    assert run(["trigger", "faulty/t", "--junit", str(junit)]) == 20
    out = capsys.readouterr().out
    (error,) = issues(out, "error")
    assert "ConfigurationError. The setting x is wrong." in error
    (uploaded,) = [read.data for read in reads(out) if read.name == "task.uploadsummary"]
    assert "**What to do.**" in Path(uploaded).read_text()
    element = ET.parse(junit).getroot().find("testsuite/testcase/error")
    assert element is not None
    assert "**What to do.**" in (element.text or "")


def test_rejected_data_fail_the_build_check_by_check(deployed: Settings, capsys: Any, tmp_path: Path) -> None:
    for label, count in (("bread", 12), ("soup", 2)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(count):
            noise = np.random.default_rng([number, len(label)]).integers(0, 255, (48, 64, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "photos" / label / f"{number}.png")
    junit = tmp_path / "gates.xml"
    source = f"data.source={tmp_path / 'photos'}"
    assert run(["trigger", "data-validation/t", "-p", source, "--junit", str(junit)]) == 10
    out = capsys.readouterr().out
    (error,) = issues(out, "error")
    assert "DataRejected." in error
    assert "'soup' (2)" in error
    assert variables(out)["state"] == "DataRejected"
    suite = ET.parse(junit).getroot()[0]
    failed = {str(case.get("name")) for case in suite.iter("testcase") if case.find("failure") is not None}
    assert "data: class_size" in failed
    passed = {str(case.get("name")) for case in suite.iter("testcase") if len(case) == 0}
    assert {"data: schema", "data: undecodable_images"} <= passed
    assert suite.get("failures") == str(len(failed))


def test_a_crashed_run_fails_the_build(deployed: Settings, capsys: Any, tmp_path: Path) -> None:
    junit = tmp_path / "gates.xml"
    assert run(["trigger", "crashing/t", "--junit", str(junit)]) == 41
    out = capsys.readouterr().out
    (error,) = issues(out, "error")
    assert "The node went away." in error
    assert "docs/runbook.md#crashed" in error
    assert ET.parse(junit).getroot().find("testsuite/testcase/error") is not None


def test_a_build_that_waits_no_longer_fails_and_says_that_the_run_goes_on(deployed: Settings, capsys: Any) -> None:
    call = ["trigger", "sample/t", "-p", "data.source=x", "-p", "data.size.seconds=8", "--timeout", "1"]
    assert run(call) == 43
    out = capsys.readouterr().out
    (error,) = issues(out, "error")
    assert "the run goes on" in error
    assert variables(out)["exitCode"] == "43"


def test_a_run_cancelled_elsewhere_fails_the_build_and_silence_is_broken(deployed: Settings, capsys: Any) -> None:
    async def scenario() -> int:
        request = Request(deployment="sample/t", pairs=("data.source=x", "data.size.seconds=120"), key="cancelled")
        following = asyncio.create_task(Trigger(silence=2).start(request))
        out = ""
        while "count 2 images runs since" not in out:
            assert not following.done(), out
            await asyncio.sleep(0.2)
            out += capsys.readouterr().out
        async with connect(deployed) as client:
            from prefect.client.schemas.objects import State, StateType

            run_id = out.split("flow-run/")[1].split()[0]
            await client.set_flow_run_state(run_id, State(type=StateType.CANCELLING, name="Cancelling"))
        return await following

    assert asyncio.run(scenario()) == 42
    (error,) = issues(capsys.readouterr().out, "error")
    assert "Cancelled" in error


def test_a_rerun_stage_goes_on_with_the_run_that_failed(deployed: Settings, capsys: Any, tmp_path: Path) -> None:
    call = ["trigger", "fails-once/t", "-p", f"marker={tmp_path / 'marker'}", "--idempotency-key", str(tmp_path)]
    assert run(call) == 40
    first = variables(capsys.readouterr().out)
    assert run(call) == 40
    assert variables(capsys.readouterr().out) == first
    assert run([*call, "--rerun-ended"]) == 0
    out = capsys.readouterr().out
    assert variables(out) == first | {"state": "Completed", "exitCode": "0"}
    assert out.count("| attempt") == 1
    assert "the first time" not in out


def test_two_builds_with_one_key_follow_one_run(deployed: Settings, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("TF_BUILD")

    async def together() -> list[int]:
        request = Request(deployment="judged/t", pairs=("outcome=reject",), key="two at once")
        return await asyncio.gather(*(Trigger(as_json=True).start(request) for _ in range(2)))

    assert asyncio.run(together()) == [3, 3]
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == second
    assert first["version"] == 3


def test_the_name_of_a_builds_approver_reaches_the_release(deployed: Settings, capsys: Any, tmp_path: Path) -> None:
    request = Request(deployment="decided/t", pairs=(f"folder={tmp_path}", "name=food"))
    trigger = Trigger(approvals=Approvals("A. Jansen", "the build was approved"))
    code = asyncio.run(trigger.start(request))
    out = capsys.readouterr().out
    assert "is approved by A. Jansen: the build was approved" in out
    assert code == 0, out


@pytest.fixture
def no_server(deployed: Settings) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
        yield
    use_prefect(deployed)


@pytest.mark.usefixtures("no_server")
def test_a_server_that_is_not_there_is_an_error_of_the_build(capsys: Any, tmp_path: Path) -> None:
    junit = tmp_path / "gates.xml"
    assert run(["trigger", "judged/t", "--junit", str(junit)]) == 22
    out = capsys.readouterr().out
    (error,) = issues(out, "error")
    assert "ServerUnreachable" in error
    assert variables(out)["exitCode"] == "22"
    assert ET.parse(junit).getroot().find("testsuite/testcase/error") is not None
