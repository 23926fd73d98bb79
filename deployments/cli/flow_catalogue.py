"""The flows that `prefect.yaml` deploys, by name."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from deployments.server.apply import load_entrypoint
from deployments.server.deployment_files import read_project
from infra.config.yaml_files import nearest
from infra.errors import ConfigurationError
from infra.settings import PROJECT

if TYPE_CHECKING:
    from prefect import Flow

PREFECT_YAML = PROJECT / "prefect.yaml"


@lru_cache(maxsize=1)
def entrypoints() -> dict[str, str]:
    """Flow name to entry point in module form, as far as they are deployed."""
    names = [item.entrypoint for item in read_project(PREFECT_YAML)]
    return {entrypoint.rpartition(".")[2].replace("_", "-"): entrypoint for entrypoint in names}


def load_flow(name: str) -> "Flow[..., Any]":
    """Import the flow called `name` (underscores are as good as hyphens).

    Raises:
        ConfigurationError: There is none; names the nearest.
    """
    flows = entrypoints()
    flow = name.replace("_", "-")
    if flow not in flows:
        raise ConfigurationError(f"There is no flow `{name}`: {nearest(flow, list(flows))}")
    return load_entrypoint(flows[flow])
