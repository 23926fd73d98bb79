"""Promotion: a version is shared to the model registry that other workspaces and subscriptions take models from."""

from pathlib import Path

from prefect import get_run_logger
from pydantic import Field

from infra.backend import release_target
from infra.config.environments import Environment
from infra.ports import RegisteredModel
from infra.settings import get_settings
from tasks.framework.artifacts import create_link_artifact
from tasks.framework.stage import Result, stage


class Promoted(Result):
    """A version that the environment's model registry has."""

    url: str = Field(description="Where a person looks at it; empty where the registry doesn't count.")


@stage("Promote", "promote {model.name} v{model.version} to the registry of {environment.name}", always=True)
def promote(model: RegisteredModel, bundle: str, environment: Environment) -> Promoted:
    """See that the model registry named by the environment's file has this version, with these bytes.

    Args:
        model: The version.
        bundle: Folder with its verified bytes.
        environment: Its file names the registry.

    Raises:
        ConfigurationError: There is no such registry, or it has the version with other bytes.
    """
    shared = release_target(environment.name, get_settings()).shared_models()
    if shared is None:
        get_run_logger().info("%s isn't on Azure: `azure.model_registry` doesn't count.", environment.name)
        return Promoted(url="")
    url = shared.share(model, Path(bundle))
    get_run_logger().info("%s is in the model registry of %s: %s", model.label, environment.name, url)
    create_link_artifact(
        key=f"shared-model-{environment.name}",
        link=url,
        link_text=url,
        description=f"{model.label} with digest {model.digest[:12]}, in the Azure ML registry",
    )
    return Promoted(url=url)
