"""The last good model back, in seconds."""

from tasks.environments import environment_file
from tasks.pipeline import pipeline
from tasks.release import Live, check_version, deploy_candidate, switch_traffic
from tasks.rollback import roll_back, version_before
from tasks.smoke_test import smoke_test


@pipeline("rollback", "rollback {environment}")
def rollback(environment: str, reason: str, name: str | None = None, version: int | None = None) -> Live:
    """Bring back the previous version, which is still warm; or a named one, by its smoke test.

    Args:
        environment: Where.
        reason: Why; recorded on the version that is taken back.
        name: Model name, where a version is named.
        version: Which registered version; the previous one if none is named.
    """
    target = environment_file(environment)
    if name is None or version is None:
        return roll_back(target, version_before(target).model, reason, by="a person")
    checked = check_version(name, version, target)
    deployed = deploy_candidate(checked.model, checked.bundle, target)
    smoke_test(deployed.candidate, checked.bundle, target)
    return switch_traffic(deployed.candidate, checked.model, target)
