"""Checks of container groups before a release to them."""

from functools import partial

from infra.azure.checks.quotas import container_cores
from infra.azure.endpoint.container_instances.groups import COLOURS, ContainerGroups
from infra.azure.endpoint.container_instances.routers import dividing_router
from infra.azure.endpoint.environment import ScoringEnvironment
from infra.errors import AccessDenied
from infra.finding import Check, Finding, finding_of_error


def container_checks(target: ScoringEnvironment, groups: ContainerGroups) -> list[Check]:
    """Of container instances: room for one more group, and a canary only where clients can be divided."""
    checks = [Check(f"{target.name}-container-quota", partial(_room, target, groups))]
    if target.environment.gates.canary is not None:
        checks.append(Check(f"{target.name}-canary", partial(_divisible, target)))
    return checks


def _room(target: ScoringEnvironment, groups: ContainerGroups, name: str) -> Finding:
    if len(groups.all().groups) == len(COLOURS):
        return Finding.of(name, "the candidate takes the place of another container group")
    location = target.resources.location
    try:
        return container_cores(target.environment, target.settings, location, name, severity="blocks", groups=1)
    except AccessDenied as error:
        # Quotas belong to the subscription: who may release need not be able to read them.
        return finding_of_error(name, error, "warns")


def _divisible(target: ScoringEnvironment, name: str) -> Finding:
    dividing_router(target)
    return Finding.of(name, "clients can be divided")
