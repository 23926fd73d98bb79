"""`ahc trigger` with a server of its own, which asks for credentials, is killed and comes back."""

import asyncio
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deployments.server.deploy import deploy_files
from infra.local.platform.platform import Platform
from infra.local.platform.prefect_settings import prefect_environment, use_prefect
from infra.settings import Settings, get_settings
from tests.conftest import environment_restored, free_ports, server_process, settings_environment
from tests.deployments.cli.commands.test_trigger import start
from tests.support.local_endpoint import eventually

pytestmark = pytest.mark.thorough

LINES = 10_000
FLOWS = ("talkers", "talker")


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A server that asks for credentials, and its worker."""
    prefect, mlflow, endpoints, *_ = free_ports(6)
    settings = Settings(home=tmp_path / "home", prefect_port=prefect, mlflow_port=mlflow, endpoint_base_port=endpoints)
    with environment_restored():
        os.environ |= {"PREFECT_SERVER_API_AUTH_STRING": "admin:secret", "PREFECT_API_AUTH_STRING": "admin:secret"}
        os.environ |= {**prefect_environment(settings), **settings_environment(settings)}
        use_prefect(settings)
        get_settings.cache_clear()
        with Platform(settings) as platform:
            platform.wait_until_ready()
            deploy_talkers(settings, tmp_path)
            yield platform


def deploy_talkers(settings: Settings, folder: Path) -> None:
    file = folder / "prefect.yaml"
    entries = [
        {"name": "t", "entrypoint": f"tests.support.sample_flows.{flow}", "work_pool": {"name": "local"}}
        for flow in FLOWS
    ]
    file.write_text(yaml.safe_dump({"deployments": entries}), encoding="utf-8")
    asyncio.run(deploy_files(settings, file))


def test_ten_thousand_lines_of_several_processes_come_once_and_in_order_though_the_server_is_killed(
    platform: Platform,
) -> None:
    refused = start("talkers/t", PREFECT_API_AUTH_STRING="admin:wrong", TF_BUILD="True")
    process = start("talkers/t", "-p", f"lines={LINES}", "-p", "seconds=12")
    assert process.stdout is not None
    shown: list[str] = []
    killed = False
    for line in process.stdout:
        shown.append(line.rstrip("\n"))
        if not killed and len(shown) > LINES // 5:
            killed = True
            server_process(get_settings()).kill()
            eventually(lambda: platform.children["prefect-server"].exit_code is not None)
            platform.check()
    assert process.wait() == 0, "\n".join(shown[-20:])
    assert killed

    counted = [found for line in shown if (found := re.search(r"\| line (\w+) (\d+) ([\d.]+)$", line))]
    by_part: dict[str, list[int]] = {}
    for found in counted:
        by_part.setdefault(found[1], []).append(int(found[2]))
    assert set(by_part) == {"minea", "mineb", "othera", "otherb"}
    for part, numbers in by_part.items():
        assert numbers == list(range(LINES // 4)), part
    logged = [float(found[3]) for found in counted]
    # Within a task each line has its place. Across processes a line that a busy machine sends late comes late.
    late = [earlier - later > 0.05 for earlier, later in itertools.pairwise(logged)]
    assert sum(late) <= LINES // 1000

    out, _ = refused.communicate()
    assert refused.returncode == 30
    assert "##vso[task.logissue type=error;]" in out
    assert "PREFECT_API_AUTH_STRING" in out
