"""This version goes on with a home that an earlier version's own code made."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from infra.backend import backend, release_target
from infra.config.environments import endpoint_key
from infra.releases.scoring_client import ScoringClient
from infra.settings import PROJECT
from tests.conftest import settings_environment
from tests.deployments.cli.commands.test_up import Up, ended
from tests.deployments.conftest import read_until
from tests.support.load import IMAGE

pytestmark = pytest.mark.thorough

# The last version before the modules moved to their rooms.
EARLIER = "beda274"
AHC = (sys.executable, "-c", "from deployments.cli.main import main; main()")
FLOWS = "tests.deployments.sample_flows"
RELEASES = """
import json, sys
from pathlib import Path
from prefect import flow
from infra.settings import get_settings
from tests.tasks.released import Released

@flow
def releases():
    environment = Released(get_settings(), Path(sys.argv[1]))
    print(json.dumps([environment.release(version).model.digest for version in (1, 2)]))

releases()
"""


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of that version."""
    folder = tmp_path_factory.mktemp("earlier")
    archive = folder / "source.tar"
    answer = subprocess.run(
        ["git", "archive", "--output", str(archive), EARLIER], cwd=PROJECT, capture_output=True, text=True, timeout=60
    )
    if answer.returncode:
        pytest.skip(f"takes the project's history: git fetch --unshallow ({answer.stderr.strip()})")
    with tarfile.open(archive) as source:
        source.extractall(folder, filter="data")
    return folder


def end(process: "subprocess.Popen[str]", up: Up) -> None:
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    up.wait_for_end()


def test_the_live_models_come_back_and_can_be_rolled_back(earlier: Path, tmp_path: Path) -> None:
    with ended(Up(tmp_path)) as up:
        for file in ("test", "acceptance"):
            text = (PROJECT / "deployments" / "environments" / f"{file}.yaml").read_text(encoding="utf-8")
            (up.settings.environments / f"{file}.yaml").write_text(text, encoding="utf-8")
        shipped = up.file.read_text(encoding="utf-8")
        up.file.write_text(shipped.replace("tests.support.sample_flows", FLOWS), encoding="utf-8")
        before = up.start(source=earlier, module="deployments.cli")
        read_until(before, "Ctrl-C stops it")
        environment = {
            **os.environ,
            **settings_environment(up.settings),
            "PREFECT_API_URL": up.settings.prefect_api_url,
        }
        releases = subprocess.run(
            [sys.executable, "-c", RELEASES, str(tmp_path / "bundles")],
            cwd=earlier,
            env={**environment, "PYTHONPATH": str(earlier)},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert releases.returncode == 0, releases.stdout + releases.stderr
        first, second = json.loads(releases.stdout.splitlines()[-1])
        end(before, up)

        up.file.write_text(shipped, encoding="utf-8")
        process = up.start()
        read_until(process, "Ctrl-C stops it")
        live = release_target("test", up.settings).endpoint().status().live
        assert live is not None
        assert (live.version, live.digest) == (2, second)
        key = release_target("test", up.settings).secrets().get(endpoint_key("test"))
        answer = ScoringClient(release_target("test", up.settings).endpoint().status().url, key).score(IMAGE)
        assert answer["model"]["digest"] == second
        assert backend(up.settings).registry().champion("colours", "test").digest == second
        assert [event.kind for event in backend(up.settings).ledger().events("test")] == ["switched", "switched"]

        back = subprocess.run(
            [
                sys.executable,
                "-c",
                "from deployments.cli.main import main; main()",
                "rollback",
                "test",
                "--reason",
                "a test",
            ],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert back.returncode == 0, back.stdout + back.stderr
        live = release_target("test", up.settings).endpoint().status().live
        assert live is not None
        assert (live.version, live.digest) == (1, first)
        end(process, up)
