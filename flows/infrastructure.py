"""Everything that the platform needs: is it there, what would change, make it so, has it drifted, take it away."""

from typing import Literal

from tasks.framework.pipeline import completed_as, pipeline
from tasks.operations.infrastructure import (
    Built,
    Gone,
    Infrastructure,
    Planned,
    Swept,
    check_infrastructure,
    detect_drift,
    one_part,
    parts,
    plan_infrastructure,
    provision_infrastructure,
    remove_infrastructure,
    sweep_orphans,
    targets,
)

Mode = Literal["check", "plan", "provision", "drift", "remove", "sweep"]
Outcome = Infrastructure | Built | Gone | Swept | list[Planned]


@pipeline("infrastructure", "infrastructure {mode}")
def infrastructure(
    mode: Mode = "check", environment: str | None = None, confirm: str = "", apply: bool = False
) -> Outcome:
    """Check, plan, provision or remove what the platform runs on; a run that finds drift ends as `Drifted`.

    Args:
        mode: `check` finds out whether all is there, each finding with its fix; `plan` shows what provisioning would
            change and cost; `provision` does it; `drift` shows where reality left the templates; `remove` deletes a
            part with all that is in it; `sweep` lists what nothing needs any more.
        environment: `platform` (the shared part) or a release target. `check`, `plan` and `drift` look at everything
            where none is named.
        confirm: For `remove`: the environment's name once more.
        apply: For `sweep`: delete what it lists.
    """
    if mode == "check":
        return check_infrastructure(targets(environment))
    if mode == "plan":
        return [plan_infrastructure(name) for name in parts(environment)]
    if mode == "provision":
        name = one_part(environment, mode)
        plan_infrastructure(name)
        return provision_infrastructure(name)
    if mode == "remove":
        return remove_infrastructure(one_part(environment, mode), confirm)
    if mode == "sweep":
        parts("platform")
        return sweep_orphans(apply)
    compared = [detect_drift(name) for name in parts(environment)]
    drifted = [item for item in compared if item.drifted]
    if drifted:
        differences = "; ".join(f"{item.plan.name}: {item.plan.summary}" for item in drifted)
        return completed_as("Drifted", f"Reality left the templates. {differences}.", compared)
    return compared
