"""One version to one environment, so that no request is lost and no wrong answer is given."""

from tasks.framework.pipeline import pipeline
from tasks.release.approval import decide
from tasks.release.canary import canary
from tasks.release.check_version import check_version, preflight
from tasks.release.deploy_and_switch import Live, deploy_candidate, switch_traffic, verify_live
from tasks.release.one_release_lock import one_release_at_a_time
from tasks.release.shadow import shadow
from tasks.release.share_model import promote
from tasks.release.smoke_test import smoke_test
from tasks.release.targets import environment_file
from tasks.release.watch import watch


@pipeline("release", "release {name} v{version} to {environment}")
def release(name: str, version: int, environment: str, by: str = "", force: bool = False, reason: str = "") -> Live:
    """Check, ask who must be asked, deploy beside the live version, try the new one, switch, and watch it.

    A version that is live already is only verified, and watched to the end of its watch. Where the environment's file
    names a model registry, the version is shared to it before it is deployed.

    Args:
        name: Name of the model.
        version: Its registered version.
        environment: Where to; its file declares the gates.
        by: Who starts it, and so may not approve it alone; where nobody is named, who started the run.
        force: Pass freeze windows, soak time, and that it is older, was rolled back or rejected; nothing else.
        reason: Why; needed with `force`, and in the ledger.
    """
    target = environment_file(environment)
    checked = check_version(name, version, target, by=by, force=force, reason=reason)
    if checked.already_live:
        live = verify_live(target, checked.model, by)
        watch(live, target)
        return live
    preflight(checked.model, target)
    if target.gates.approval:
        decide(checked.model, target, by)
    if target.azure.model_registry:
        promote(checked.model, checked.bundle, target)
    with one_release_at_a_time(target):
        candidate = deploy_candidate(checked, target).candidate
        smoke_test(candidate, checked.bundle, target)
        if target.gates.shadow:
            shadow(candidate, target)
        if target.gates.canary:
            canary(candidate, target)
        live = switch_traffic(candidate, checked, target, by)
    watch(live, target)
    return live
