"""`ahc deploy` against a real server."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.events.schemas.automations import AutomationCore

from deployments.cli.commands.deploy import describe
from deployments.cli.main import run
from deployments.server.apply import read_deployments
from deployments.server.automations import comparable
from deployments.server.connection import connect, server
from deployments.server.deploy import SERVER_FILE, deploy_files
from deployments.server.planned_change import Change, Difference
from infra.errors import ConfigurationError
from infra.settings import PROJECT, Settings
from tests.support.local_endpoint import eventually

FLOWS = "tests.support.sample_flows"


def entry(flow: str, **more: Any) -> dict[str, Any]:
    return {"name": "deploy-test", "entrypoint": f"{FLOWS}.{flow}", "work_pool": {"name": "local"}, **more}


def write(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump({"name": "tests", "deployments": list(entries)}), encoding="utf-8")
    return path


def deploy(settings: Settings, file: Path, **more: Any) -> tuple[Change, ...]:
    return asyncio.run(deploy_files(settings, file, **more))


def deployments(settings: Settings) -> dict[str, Any]:
    async def read() -> dict[str, Any]:
        async with connect(settings) as client:
            return dict(await read_deployments(client))

    return asyncio.run(read())


def update_of(field: str, change: Change) -> Difference:
    return next(item for item in change.fields if item.field == field)


def actions(changes: tuple[Change, ...]) -> set[tuple[str, str]]:
    return {(change.action, change.name) for change in changes}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    schedule = {"slug": "weekly", "cron": "0 5 * * 1", "timezone": "Europe/Amsterdam", "active": False}
    return write(
        tmp_path / "prefect.yaml",
        entry(
            "sample",
            description="Counts.",
            tags=["a"],
            parameters={"data": {"source": "here"}},
            schedules=[schedule],
            concurrency_limit={"limit": 1, "collision_strategy": "ENQUEUE"},
        ),
        entry("failing"),
    )


def test_applying_twice_changes_nothing(prefect_server: Settings, file: Path) -> None:
    deploy(prefect_server, file)
    assert deploy(prefect_server, file) == ()


def test_what_the_file_says_is_on_the_server(prefect_server: Settings, file: Path) -> None:
    deploy(prefect_server, file)
    found = deployments(prefect_server)["sample/deploy-test"]
    assert found.description == "Counts."
    assert set(found.tags) == {"a", "ahc"}
    assert found.parameters == {"data": {"source": "here"}}
    assert found.work_pool_name == "local"
    assert found.global_concurrency_limit.limit == 1
    assert found.version
    assert [(item.slug, item.active) for item in found.schedules] == [("weekly", False)]
    # The form in the UI: the description of each field of the flow's input model.
    source = found.parameter_openapi_schema["definitions"]["Request"]["properties"]["source"]
    assert source["description"] == "Where the images are."


def test_a_dry_run_shows_the_difference_and_changes_nothing(prefect_server: Settings, file: Path) -> None:
    deploy(prefect_server, file)
    write(file, entry("sample", description="Counts more."), entry("unpromoted"))
    planned = deploy(prefect_server, file, dry_run=True)
    assert actions(planned) == {
        ("update", "sample/deploy-test"),
        ("create", "unpromoted/deploy-test"),
        ("remove", "failing/deploy-test"),
    }
    [update] = [change for change in planned if change.action == "update"]
    assert {item.field: (item.before, item.after) for item in update.fields} == {
        "concurrency_limit": (1, None),
        "concurrency_options": ({"collision_strategy": "ENQUEUE"}, None),
        "description": ("Counts.", "Counts more."),
        "parameters.data": ({"source": "here"}, None),
        "schedules.weekly": (update_of("schedules.weekly", update).before, None),
        "tags": (["a", "ahc"], ["ahc"]),
    }
    assert 'description: "Counts." -> "Counts more."' in describe(update)
    assert "parameters.data: " in describe(update)
    assert deployments(prefect_server)["sample/deploy-test"].description == "Counts."
    assert "unpromoted/deploy-test" not in deployments(prefect_server)


def test_what_is_no_longer_in_the_file_is_removed_and_what_others_made_stays(
    prefect_server: Settings, file: Path
) -> None:
    deploy(prefect_server, file)

    async def foreign() -> None:
        async with connect(prefect_server) as client:
            flow = await client.create_flow_from_name("foreign")
            await client.create_deployment(flow, "theirs", entrypoint="somewhere.else")

    asyncio.run(foreign())
    write(file, entry("sample"))
    deploy(prefect_server, file)
    names = set(deployments(prefect_server))
    assert {"sample/deploy-test", "foreign/theirs"} <= names
    assert "failing/deploy-test" not in names


def test_a_schedule_that_an_operator_started_makes_runs_and_stays_started(prefect_server: Settings, file: Path) -> None:
    deploy(prefect_server, file)

    async def start() -> UUID:
        async with connect(prefect_server) as client:
            found = (await read_deployments(client))["sample/deploy-test"]
            await client.update_deployment_schedule(found.id, found.schedules[0].id, active=True)
            return found.id

    deployment = asyncio.run(start())
    with server(prefect_server) as client:
        only = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
        eventually(lambda: client.read_flow_runs(deployment_filter=only))
        planned = client.read_flow_runs(deployment_filter=only)
    times = [run.expected_start_time.astimezone(ZoneInfo("Europe/Amsterdam")) for run in planned]
    assert {(time.isoweekday(), time.hour, time.minute) for time in times} == {(1, 5, 0)}
    assert deploy(prefect_server, file) == ()
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["deployments"][0]["description"] = "Counts again."
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    deploy(prefect_server, file)
    assert deployments(prefect_server)["sample/deploy-test"].schedules[0].active is True


def test_the_command_says_what_it_did(prefect_server: Settings, file: Path, capsys: Any) -> None:
    assert run(["deploy", "--file", str(file), "--json"]) == 0
    capsys.readouterr()
    assert run(["deploy", "--file", str(file)]) == 0
    assert "Nothing changed" in capsys.readouterr().out
    write(file, entry("sample", description="Other."))
    assert run(["deploy", "--file", str(file), "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["applied"] is False
    assert {item["action"] for item in shown["changes"]} == {"update", "remove"}


def test_a_misspelt_key_is_named_with_the_nearest(tmp_path: Path, prefect_server: Settings) -> None:
    wrong = write(tmp_path / "prefect.yaml", entry("sample", descripton="Counts."))
    with pytest.raises(ConfigurationError, match=r"descripton.*did you mean `description`"):
        deploy(prefect_server, wrong)


def test_an_entry_point_that_does_not_load_is_named(tmp_path: Path, prefect_server: Settings) -> None:
    wrong = write(tmp_path / "prefect.yaml", entry("nothing_here"))
    with pytest.raises(ConfigurationError, match="nothing_here"):
        deploy(prefect_server, wrong)


def test_limits_of_the_server_file_are_applied(tmp_path: Path, prefect_server: Settings, file: Path) -> None:
    content = yaml.safe_load(SERVER_FILE.read_text(encoding="utf-8"))
    server = tmp_path / "server.yaml"
    server.write_text(yaml.safe_dump({**content, "concurrency_limits": {"gpu": 2}}), encoding="utf-8")
    first = deploy(prefect_server, file, server_file=server)
    assert ("create", "gpu") in actions(first)
    assert deploy(prefect_server, file, server_file=server) == ()


def test_a_work_pool_has_the_template_of_its_file(tmp_path: Path, prefect_server: Settings, file: Path) -> None:
    template = {
        "job_configuration": {"command": "{{ command }}", "image": "{{ image }}"},
        "variables": {"type": "object", "properties": {"command": {"type": "string"}, "image": {"type": "string"}}},
    }
    (tmp_path / "pools").mkdir()
    (tmp_path / "pools" / "cluster.yaml").write_text(yaml.safe_dump(template), encoding="utf-8")
    server = with_pool(tmp_path, template="pools/cluster.yaml", job_variables={"image": "here"})
    deploy(prefect_server, file, server_file=server)

    async def read() -> Any:
        async with connect(prefect_server) as client:
            return (await client.read_work_pool("cluster")).base_job_template

    present = asyncio.run(read())
    assert present["job_configuration"] == template["job_configuration"]
    assert present["variables"]["properties"]["image"] == {"type": "string", "default": "here"}
    assert deploy(prefect_server, file, server_file=server) == ()


def test_a_template_without_variables_is_refused(tmp_path: Path, prefect_server: Settings, file: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("job_configuration: {command: python}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"cluster\.yaml.*`variables`: Field required"):
        deploy(prefect_server, file, server_file=with_pool(tmp_path, template="cluster.yaml"))


def with_pool(folder: Path, **definition: Any) -> Path:
    """The shipped server file with one work pool more."""
    content = yaml.safe_load(SERVER_FILE.read_text(encoding="utf-8"))
    content["work_pools"]["cluster"] = {"type": "kubernetes", **definition}
    server = folder / "server.yaml"
    server.write_text(yaml.safe_dump(content), encoding="utf-8")
    return server


def test_the_shipped_files_can_be_applied(prefect_server: Settings) -> None:
    planned = deploy(prefect_server, PROJECT / "prefect.yaml", dry_run=True)
    created = {change.name for change in planned if change.kind == "deployment" and change.action == "create"}
    assert {"lifecycle/local", "release/production", "rollback/test"} <= created


def test_the_order_of_a_triggers_events_is_no_difference() -> None:
    """Prefect keeps them as a set, which has another order in each process."""
    events = [f"ahc.{name}" for name in "abcdefgh"]
    trigger = {"type": "event", "posture": "Reactive", "expect": events, "after": events, "threshold": 1, "within": 0}
    automation = AutomationCore.model_validate({"name": "Many", "trigger": trigger, "actions": []})
    told = comparable(automation)["trigger"]
    assert (told["expect"], told["after"]) == (events, events)
