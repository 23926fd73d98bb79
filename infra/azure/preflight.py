"""What would make a release to an environment on Azure fail now: the checks of `ahc doctor` that one release needs."""

from collections.abc import Callable

from infra.azure.checks import of_environment, resources_there
from infra.azure.container_groups import COLOURS, ContainerGroups
from infra.azure.quotas import container_cores
from infra.azure.release_checks import Check, all_at_once, found_out, release_checks
from infra.azure.resources import forget_resources
from infra.azure.routers import dividing_router
from infra.azure.scoring_environment import ScoringEnvironment
from infra.azure.web_app import PRODUCTION, SLOT, WebApp
from infra.errors import AccessDenied, PlatformError
from infra.findings import Finding


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
        found, further = target.resources, own()
    except PlatformError as error:
        if error.transient:
            raise
        return [f"{name}: {error} {error.next_step}"]
    checks = {**release_checks(target.environment, found, target.settings), **further}
    findings = [
        *resources_there(name, found, of_environment(found)),
        *all_at_once([_required(*item) for item in checks.items()]),
    ]
    return [finding.sentence for finding in findings if finding.blocks]


def container_checks(target: ScoringEnvironment, groups: ContainerGroups) -> dict[str, Check]:
    """Of container instances: room for one more group, and a canary only where clients can be divided."""
    checks = {f"{target.name}-container-quota": lambda: _room(target, groups)}
    if target.environment.gates.canary is not None:
        checks[f"{target.name}-canary"] = lambda: _divisible(target)
    return checks


def web_app_checks(target: ScoringEnvironment, app: WebApp) -> dict[str, Check]:
    """Of App Service: the web app and its slot; its plan can't be missing where they are there."""
    return {f"{target.name}-slot": lambda: _slot(target.name, app)}


def _required(name: str, check: Check) -> Check:
    return lambda: found_out(name, check, "blocks")


def _room(target: ScoringEnvironment, groups: ContainerGroups) -> Finding:
    name = f"{target.name}-container-quota"
    if len(groups.all().groups) == len(COLOURS):
        detail = "the candidate takes the place of another container group"
        return Finding(name=name, ok=True, severity="blocks", detail=detail)
    location = target.resources.location
    try:
        return container_cores(target.environment, target.settings, location, severity="blocks", groups=1)
    except AccessDenied as error:
        # Quotas belong to the subscription: who may release need not be able to read them.
        return Finding(name=name, ok=False, severity="warns", detail=str(error), fix=error.next_step)


def _divisible(target: ScoringEnvironment) -> Finding:
    dividing_router(target)
    return Finding(name=f"{target.name}-canary", ok=True, severity="blocks", detail="clients can be divided")


def _slot(name: str, app: WebApp) -> Finding:
    for slot in (PRODUCTION, SLOT):
        app.place(slot)
    return Finding(name=f"{name}-slot", ok=True, severity="blocks", detail=f"{app.name} has the slot {SLOT}")
