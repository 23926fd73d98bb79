"""One version to one environment, so that no request is lost and no wrong answer is given."""

from tasks.approval import record_decision, wait_for_approval
from tasks.environments import environment_file
from tasks.pipeline import pipeline
from tasks.release import Live, check_version, deploy_candidate, switch_traffic, verify_live
from tasks.smoke_test import smoke_test


@pipeline("release", "release {name} v{version} to {environment}")
def release(name: str, version: int, environment: str) -> Live:
    """Deploy beside the live version, smoke test, switch; a version that is live already is only verified.

    Args:
        name: Name of the model.
        version: Its registered version.
        environment: Where to; its file says whether a person must approve.
    """
    target = environment_file(environment)
    checked = check_version(name, version, target)
    if checked.already_live:
        return verify_live(target, checked.model)
    if target.gates.approval:
        record_decision(checked.model, target, wait_for_approval(checked.model, target))
    deployed = deploy_candidate(checked.model, checked.bundle, target)
    smoke_test(deployed.candidate, checked.bundle, target)
    return switch_traffic(deployed.candidate, checked.model, target)
