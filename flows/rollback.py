"""The last good model back, in seconds."""

from tasks.framework.pipeline import pipeline
from tasks.release.check_version import check_return
from tasks.release.deploy_and_switch import Live, deploy_candidate
from tasks.release.one_release_lock import one_release_at_a_time
from tasks.release.rollback import go_back, roll_back, version_before
from tasks.release.smoke_test import smoke_test
from tasks.release.targets import environment_file


@pipeline("rollback", "rollback {environment}")
def rollback(environment: str, reason: str, name: str | None = None, version: int | None = None, by: str = "") -> Live:
    """Bring back the previous version, which is still warm; or a named one, by its smoke test.

    Args:
        environment: Where.
        reason: Why; recorded on the version that is taken back.
        name: Model name, where a version is named.
        version: Which registered version; the previous one if none is named.
        by: Who asks for it; where nobody is named, who started the run.
    """
    target = environment_file(environment)
    if name is None or version is None:
        # Whoever is hurt now doesn't wait for a release that is on its way: that one sees it and stops.
        return roll_back(target, version_before(target).model, reason, by)
    checked = check_return(name, version, target)
    with one_release_at_a_time(target):
        candidate = deploy_candidate(checked, target).candidate
        smoke_test(candidate, checked.bundle, target)
        return go_back(candidate, checked, target, reason, by)
