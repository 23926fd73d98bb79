"""What would make a release to an environment on Azure fail now: the checks of `ahc doctor` that one release needs."""

from collections.abc import Callable

from infra.azure.access.resources import forget_resources
from infra.azure.checks.platform_and_environments import of_environment, resources_there
from infra.azure.checks.release import release_checks, run_checks
from infra.azure.endpoint.environment import ScoringEnvironment
from infra.errors import PlatformError
from infra.finding import Check


def preflight(target: ScoringEnvironment, own: Callable[[], list[Check]]) -> list[str]:
    """Each finding that blocks, with its fix.

    Args:
        target: The release target.
        own: Further checks, as the kind of endpoint has them; asked for once it is provisioned.

    Raises:
        PlatformError: One that is transient: nobody knows now what is in the way.
    """
    name = target.name
    forget_resources()
    try:
        resources, further = target.resources, own()
    except PlatformError as error:
        if error.transient:
            raise
        return [f"{name}: {error} {error.next_step}"]
    findings = [
        *resources_there(name, resources, of_environment(resources)),
        *run_checks([*release_checks(target.environment, resources, target.settings), *further]),
    ]
    return [finding.sentence for finding in findings if finding.blocks]
