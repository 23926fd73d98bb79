import pytest

from infra.azure.endpoint.app_service.endpoint import AppServiceEndpoint
from infra.azure.endpoint.container_instances.endpoint import ContainerInstancesEndpoint
from infra.backend import release_target
from infra.local.endpoint.endpoint import LocalEndpoint
from infra.settings import Settings


@pytest.mark.parametrize(
    ("described", "adapter"),
    [
        ("backend: local", LocalEndpoint),
        ("backend: azure", ContainerInstancesEndpoint),
        ("backend: azure\nazure: {endpoint: app-service}", AppServiceEndpoint),
    ],
)
def test_an_environments_file_chooses_what_serves_its_endpoint(tmp_path, described, adapter):
    (tmp_path / "test.yaml").write_text(f"name: test\ndescription: x\nport_offset: 1\n{described}\n")
    endpoint = release_target("test", Settings(home=tmp_path / "home", environments=tmp_path)).endpoint()
    assert type(endpoint) is adapter
    assert endpoint.environment == "test"
