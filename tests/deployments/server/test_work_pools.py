"""Work queues, what is removed, and two deploys at once: `ahc deploy` against a real server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.cli.commands.deploy import describe
from deployments.server.connection import DEPLOYING, GIVEN_UP_AFTER, connect, server
from deployments.server.deploy import SERVER_FILE, deploy_files
from deployments.server.planned_change import Change
from infra.errors import ConfigurationError
from infra.settings import Settings

POOL = "queued"
SHIPPED = yaml.safe_load(SERVER_FILE.read_text(encoding="utf-8"))["work_pools"]


class Files:
    """A project file without deployments, and a server file that can be changed."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.settings = settings
        self._project, self._server = folder / "prefect.yaml", folder / "server.yaml"
        self._project.write_text("deployments: []\n", encoding="utf-8")

    def deploy(self, pools: dict[str, Any], limits: dict[str, int] | None = None, **more: Any) -> tuple[Change, ...]:
        self.write(pools, limits)
        return asyncio.run(self.deploying(**more))

    def write(self, pools: dict[str, Any], limits: dict[str, int] | None = None) -> None:
        # The pool of the worker beside this stays: it ends where there is none.
        content = {"work_pools": {**SHIPPED, **pools}, "concurrency_limits": limits or {}}
        self._server.write_text(yaml.safe_dump(content), encoding="utf-8")

    async def deploying(self, **more: Any) -> tuple[Change, ...]:
        return await deploy_files(self.settings, self._project, self._server, **more)

    def queues(self) -> dict[str, tuple[int, int | None]]:
        with server(self.settings) as client:
            found = client.request("POST", f"/work_pools/{POOL}/queues/filter", json={}).json()
        return {item["name"]: (item["priority"], item["concurrency_limit"]) for item in found}


@pytest.fixture
def files(tmp_path: Path, prefect_server: Settings) -> Iterator[Files]:
    files = Files(tmp_path, prefect_server)
    yield files
    # The server has what is shipped again, for who comes next.
    asyncio.run(deploy_files(prefect_server, files._project, SERVER_FILE))


def pool(**queues: int) -> dict[str, Any]:
    return {POOL: {"type": "process", "queues": {name: {"priority": number} for name, number in queues.items()}}}


def actions(changes: tuple[Change, ...]) -> set[tuple[str, str]]:
    return {(change.action, change.name) for change in changes if change.kind != "record"}


def test_queues_have_the_order_of_the_file_also_after_it_changed(files: Files) -> None:
    first = pool(urgent=1, default=2, background=3)
    first[POOL]["queues"]["background"]["concurrency_limit"] = 4
    files.deploy(first)
    assert files.queues() == {"urgent": (1, None), "default": (2, None), "background": (3, 4)}
    assert files.deploy(first) == ()
    turned = pool(background=1, default=2, urgent=3)
    planned = files.deploy(turned, dry_run=True)
    assert "concurrency_limit: 4 -> none" in "\n".join(describe(change) for change in planned)
    files.deploy(turned)
    assert files.queues() == {"background": (1, None), "default": (2, None), "urgent": (3, None)}
    assert files.deploy(turned) == ()


def test_queues_pools_and_limits_that_the_file_named_before_are_removed_and_those_of_others_stay(files: Files) -> None:
    files.deploy(pool(urgent=1, default=2), {"ours": 1})
    with server(files.settings) as client:
        client.request("POST", f"/work_pools/{POOL}/queues/", json={"name": "theirs"})
        client.create_global_concurrency_limit(_limit("theirs"))
    changed = files.deploy(pool(default=1))
    assert actions(changed) >= {("remove", f"{POOL}/urgent"), ("remove", "ours")}
    assert set(files.queues()) == {"default", "theirs"}
    with server(files.settings) as client:
        assert "theirs" in {item.name for item in client.read_global_concurrency_limits()}
        client.delete_global_concurrency_limit_by_name("theirs")
    assert ("remove", POOL) in actions(files.deploy({}))
    assert ("create", POOL) in actions(files.deploy(pool(default=1), dry_run=True))


def test_a_pool_that_somebody_else_uses_stays(files: Files) -> None:
    files.deploy(pool(default=1))
    with server(files.settings) as client:
        flow = client.create_flow_from_name("foreign")
        theirs = client.create_deployment(flow, "uses-the-pool", entrypoint="x.y", work_pool_name=POOL)
    assert ("remove", POOL) not in actions(files.deploy({}))
    with server(files.settings) as client:
        client.delete_deployment(theirs)
        client.delete_work_pool(POOL)


def test_two_deploys_at_once_both_succeed_and_only_one_changes_something(files: Files) -> None:
    files.write(pool(urgent=1, default=2), {"together": 1})

    async def both() -> list[tuple[Change, ...]]:
        return await asyncio.gather(files.deploying(), files.deploying(), files.deploying())

    changed = asyncio.run(both())
    assert sorted(bool(item) for item in changed) == [False, False, True]


def test_the_turn_of_a_deploy_that_died_is_taken_over(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GIVEN_UP_AFTER, DEPLOYING, 1.0)

    async def left_behind() -> None:
        from prefect.client.schemas.actions import VariableCreate

        async with connect(files.settings) as client:
            await client.create_variable(VariableCreate(name=DEPLOYING, value="dead"))

    asyncio.run(left_behind())
    files.deploy(pool(default=1))
    with server(files.settings) as client:
        assert client.read_variable_by_name(DEPLOYING) is None


def test_two_queues_of_one_priority_are_refused(files: Files) -> None:
    with pytest.raises(ConfigurationError, match="two queues have the same priority"):
        files.deploy(pool(urgent=1, default=1))


def _limit(name: str) -> Any:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

    return GlobalConcurrencyLimitCreate(name=name, limit=1)
