"""Preflight: what would make a deployment fail is found before anything is created."""

from infra.backend import endpoint
from infra.config.environments import Environment
from infra.errors import PlatformUnhealthy
from infra.ports import RegisteredModel
from infra.settings import get_settings
from tasks.framework.stage import Result, stage


@stage("Preflight", "preflight of {model.name} v{model.version} in {environment.name}", always=True)
def preflight(model: RegisteredModel, environment: Environment) -> Result:
    """Whether a candidate can be deployed there now: room, quota, image, keys, and all that it stands on.

    Raises:
        PlatformUnhealthy: Names everything that is in the way, each with its fix; nothing was created.
    """
    problems = endpoint(environment.name, get_settings()).preflight()
    if problems:
        raise PlatformUnhealthy(
            f"{model.label} can't be deployed to {environment.name} now. {' '.join(problems)}",
            next_step="Mend what is named, then rerun: nothing was created.",
        )
    return Result()
