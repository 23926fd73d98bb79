"""The stage that looks at what is in the way of a deployment."""

import socket
from datetime import UTC, datetime

import pytest

from infra.errors import PlatformUnhealthy
from infra.ports import RegisteredModel
from infra.settings import get_settings
from tasks.release.check_version import preflight
from tasks.release.targets import environment_file
from tests.conftest import free_ports
from tests.support.released import ENVIRONMENT, in_a_run

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_a_release_ends_as_platform_unhealthy_before_anything_is_created(tmp_path, monkeypatch):
    model = RegisteredModel(name="colours", version=3, digest="0" * 64, uri="x", created=datetime.now(UTC))
    target = environment_file(ENVIRONMENT)

    def listening_on(port: int) -> None:
        monkeypatch.setenv("AHC_ENDPOINT_BASE_PORT", str(port - target.port_offset))
        get_settings.cache_clear()

    monkeypatch.setenv("AHC_HOME", str(tmp_path / "home"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        listening_on(other.getsockname()[1])
        with pytest.raises(
            PlatformUnhealthy, match=r"colours v3 can't be deployed to test now\. port-test: \d+ is used"
        ):
            in_a_run(preflight, model, target)
    assert not (tmp_path / "home" / "endpoints" / "test" / "bundles").exists()
    listening_on(free_ports(1)[0])
    in_a_run(preflight, model, target)
    monkeypatch.undo()
    get_settings.cache_clear()
