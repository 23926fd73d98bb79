"""Checks of container groups before a release to them."""

from infra.azure.checks.quotas import container_cores
from infra.azure.checks.release import Check
from infra.azure.endpoint.container_instances.groups import COLOURS, ContainerGroups
from infra.azure.endpoint.container_instances.routers import dividing_router
from infra.azure.endpoint.environment import ScoringEnvironment
from infra.errors import AccessDenied
from infra.finding import Finding


def container_checks(target: ScoringEnvironment, groups: ContainerGroups) -> dict[str, Check]:
    """Of container instances: room for one more group, and a canary only where clients can be divided."""
    checks = {f"{target.name}-container-quota": lambda: _room(target, groups)}
    if target.environment.gates.canary is not None:
        checks[f"{target.name}-canary"] = lambda: _divisible(target)
    return checks


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
