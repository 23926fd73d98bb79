"""Rollback: the version before takes over again, and the bad one is marked."""

from datetime import UTC, datetime

from prefect import get_run_logger

from infra.backend import endpoint, registry
from infra.environments import Environment
from infra.settings import get_settings
from tasks.release import Live, verified
from tasks.stage import stage


@stage("Roll back", "roll back {environment.name}", always=True)
def roll_back(environment: Environment, reason: str) -> Live:
    """The warm previous version takes over; the bad one is marked.

    Raises:
        NothingToRollBackTo: The environment has no previous version.
    """
    settings = get_settings()
    target = endpoint(environment.name, settings)
    bad = target.status().live
    good = target.rollback()
    live = verified(environment, good.digest)
    models = registry(settings)
    if bad is not None and bad.digest != good.digest:
        models.tag(models.get(bad.name, bad.version), {f"rolled_back.{environment.name}": reason})
    back = models.get(good.name, good.version)
    models.set_champion(back, environment.name)
    models.tag(back, {f"released.{environment.name}": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"})
    get_run_logger().info("%s runs %s v%d again.", environment.name, good.name, good.version)
    return live
