"""prefect.yaml and server.yaml as they are shipped."""

import re
from zoneinfo import ZoneInfo

import pytest
import yaml

from deployments.cli.flow_catalogue import PREFECT_YAML
from deployments.server.apply import load_entrypoint
from deployments.server.deploy import SERVER_FILE
from deployments.server.deployment_files import ConcurrencyEntry, DeploymentEntry, read_project, read_server
from deployments.server.work_pools import check_queues
from infra.config.environments import environment_names
from infra.errors import ConfigurationError
from infra.settings import PROJECT, Settings

ENTRIES = read_project(PREFECT_YAML)
SERVER = read_server(SERVER_FILE)
NAMES = [f"{load_entrypoint(item.entrypoint).name}/{item.name}" for item in ENTRIES]
COMMANDS_MD = (PROJECT / "docs" / "commands.md").read_text(encoding="utf-8")


def each(entries: list[DeploymentEntry]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", entries, ids=lambda item: f"{item.entrypoint}-{item.name}")


def test_prefect_itself_reads_the_file_the_same_way() -> None:
    from prefect.cli.deploy._models import PrefectYamlModel

    read = PrefectYamlModel.model_validate(yaml.safe_load(PREFECT_YAML.read_text(encoding="utf-8")))
    for ours, theirs in zip(ENTRIES, read.deployments, strict=True):
        assert (ours.name, ours.entrypoint, ours.parameters) == (theirs.name, theirs.entrypoint, theirs.parameters)
        assert theirs.work_pool.work_queue_name == ours.work_pool.work_queue_name
        assert len(theirs.schedules or []) == len(ours.schedules)


def test_what_is_of_an_environment_is_there_for_each() -> None:
    for flow in ("release", "rollback", "key-rotation", "scoring-records"):
        found = {name.split("/")[1] for name in NAMES if name.startswith(f"{flow}/")}
        assert found == set(environment_names(Settings().environments))


@each(list(ENTRIES))
def test_its_description_helps(entry: DeploymentEntry) -> None:
    assert entry.description
    [docs] = re.findall(r"Docs: (.+)\.$", entry.description)
    assert all((PROJECT / path).is_file() for path in docs.split(", "))


@each([entry for entry in ENTRIES if entry.schedules])
def test_what_is_scheduled_starts_paused_and_never_runs_twice_at_once(entry: DeploymentEntry) -> None:
    assert isinstance(entry.concurrency_limit, ConcurrencyEntry)
    assert entry.concurrency_limit.limit == 1
    for schedule in entry.schedules:
        ZoneInfo(schedule.timezone)
        assert schedule.active == (schedule.slug == "quarter-hourly")


@each([entry for entry in ENTRIES if entry.concurrency_limit])
def test_its_description_says_what_becomes_of_a_second_run(entry: DeploymentEntry) -> None:
    assert isinstance(entry.concurrency_limit, ConcurrencyEntry)
    waits = entry.concurrency_limit.collision_strategy == "ENQUEUE"
    assert ("wait for each other" if waits else "is cancelled") in str(entry.description)


def test_the_documents_list_every_deployment_with_its_queue_and_what_becomes_of_a_second_run() -> None:
    section = COMMANDS_MD.split("## Deployments and their schedules\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| `")
    ]
    documented = {name: (queue, bool(schedule), then.split(":")[0]) for name, queue, schedule, then in rows}
    shipped = {}
    for name, entry in zip(NAMES, ENTRIES, strict=True):
        limit = entry.concurrency_limit
        assert isinstance(limit, ConcurrencyEntry | None)
        then = {"ENQUEUE": "waits", "CANCEL_NEW": "is cancelled"}[limit.collision_strategy] if limit else "runs too"
        target = name if name in documented else f"{name.split('/')[0]}/ENV"
        shipped[target] = (entry.work_pool.work_queue_name, bool(entry.schedules), then)
    assert documented == shipped


def test_every_deployment_names_a_queue_that_its_pool_has() -> None:
    check_queues(ENTRIES, SERVER.work_pools)
    wrong = ENTRIES[0].model_copy(
        update={"work_pool": ENTRIES[0].work_pool.model_copy(update={"work_queue_name": "urgnt"})}
    )
    with pytest.raises(ConfigurationError, match="did you mean `urgent`"):
        check_queues((wrong,), SERVER.work_pools)
