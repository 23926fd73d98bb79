"""The shipped images, built once a session, and a scoring container on the Azure bench."""

import pytest

from infra.version import revision
from tests.conftest import free_ports
from tests.support.azure import bench as benches
from tests.support.azure.fixtures import forget_clients
from tests.support.azure.scoring_containers import published
from tests.support.azure.small_platform import provision
from tests.support.containers import podman


@pytest.fixture(scope="session")
def images_can_be_built():
    if reason := podman.missing():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def scoring_image(images_can_be_built):
    return podman.build("scoring", VERSION="1.2.3", REVISION=revision(), SOURCE="https://example.org/ahc")


@pytest.fixture(scope="session")
def on_the_bench(bench_process):
    """What lets a container reach the bench, and sign in by its managed identity."""
    variables = {name: "/ca.pem" if value == bench_process.ca else value for name, value in bench_process.env().items()}
    return variables, ("--volume", f"{bench_process.ca}:/ca.pem:ro")


@pytest.fixture
def config(cloud, tmp_path):
    return published(cloud, tmp_path / "bundle").model_copy(update={"port": free_ports(1)[0]})


@pytest.fixture(scope="module")
def scoring_container(scoring_image, bench_process, on_the_bench, tmp_path_factory):
    """A container that serves for a whole module, with the settings of its cloud."""
    bench_process.reset()
    forget_clients()
    folder = tmp_path_factory.mktemp("container")
    settings = benches.azure_settings(folder / "home")
    provision(settings, "test")
    config = published(settings, folder / "bundle").model_copy(update={"port": free_ports(1)[0]})
    variables, options = on_the_bench
    with podman.container(scoring_image, config.port, {**variables, **config.variables()}, *options) as running:
        running.ready(120)
        yield running, settings, config
