"""What would make a release to an environment on Azure fail now: the checks of `ahc doctor` that one release needs."""

from collections.abc import Callable

from infra.azure.access.resources import forget_resources
from infra.azure.checks.platform_and_environments import of_environment, resources_there
from infra.azure.checks.release import Check, all_at_once, found_out, release_checks
from infra.azure.endpoint.environment import ScoringEnvironment
from infra.errors import PlatformError


def preflight(target: ScoringEnvironment, own: Callable[[], dict[str, Check]]) -> list[str]:
    """Each finding that blocks, with its fix.

    Args:
        target: The release target.
        own: Further checks by the finding's name, as the kind of endpoint has them; asked for once it is provisioned.

    Raises:
        PlatformError: One that is transient: what would be found is not known now.
    """
    name = target.name
    forget_resources()
    try:
        resources, further = target.resources, own()
    except PlatformError as error:
        if error.transient:
            raise
        return [f"{name}: {error} {error.next_step}"]
    checks = {**release_checks(target.environment, resources, target.settings), **further}
    findings = [
        *resources_there(name, resources, of_environment(resources)),
        *all_at_once([_required(*item) for item in checks.items()]),
    ]
    return [finding.sentence for finding in findings if finding.blocks]


def _required(name: str, check: Check) -> Check:
    return lambda: found_out(name, check, "blocks")
