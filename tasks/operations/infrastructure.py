"""Infrastructure: is everything there that the next hour needs, what would change, and change it."""

import re
from collections.abc import Sequence

from prefect import get_run_logger
from prefect.events import emit_event

from infra.azure.access.resources import PLATFORM
from infra.azure.provisioning.costs import CostEstimate, estimate
from infra.azure.provisioning.deployments import Operation
from infra.azure.provisioning.provision import Provisioned, plan, provision
from infra.azure.provisioning.removal import Removed, provisioned_environments, remove
from infra.azure.provisioning.sweeping import Orphan, orphans, sweep
from infra.azure.provisioning.templates import compose
from infra.azure.provisioning.what_if import Plan, ResourceChange
from infra.backend import release_target
from infra.checks.machine_and_azure import check_infrastructure as findings_of
from infra.config.environments import environment_names, load_environment
from infra.errors import ConfigurationError, PlatformUnhealthy
from infra.settings import get_settings
from tasks.framework.artifacts import Progress, create_markdown_artifact, table
from tasks.framework.stage import Result, stage

DRIFTED = "ahc.infrastructure.drifted"
"""The event of an environment whose reality left the template; automations listen for it."""
MARKS = {"Create": "🟩 create", "Modify": "🟨 change", "Delete": "🟥 delete", "Unsupported": "⬜ not foreseeable"}
"""A coloured mark with its word, so that the kind does not depend on colour alone."""


class Infrastructure(Result):
    """What was checked and is good enough."""

    warnings: tuple[str, ...]


class Planned(Result):
    """What provisioning would change."""

    plan: Plan

    @property
    def drifted(self) -> bool:
        return bool(self.plan.effects)


class Built(Result):
    """What a provisioning did."""

    name: str
    changed: bool
    operations: int


class Gone(Result):
    """What a removal did."""

    removed: Removed


class Swept(Result):
    """What nothing needs, and whether it was deleted."""

    orphans: tuple[Orphan, ...]
    deleted: bool


@stage("Check infrastructure", "check this machine", always=True)
def check_infrastructure(environments: Sequence[str] | None = None) -> Infrastructure:
    """Check this machine; on Azure also the platform and these environments (all of them where none are given).

    Raises:
        PlatformUnhealthy: Something blocks; the message names each with its fix.
    """
    findings = findings_of(get_settings(), environments)
    rows: list[tuple[object, ...]] = [
        ("ok" if finding.ok else f"**{finding.severity}**", finding.name, finding.detail, finding.fix)
        for finding in findings
    ]
    create_markdown_artifact(
        key="infrastructure",
        markdown="# Infrastructure\n\n" + table(("result", "check", "found", "fix"), rows),
        description="What this machine has, and what is there on Azure where that is the backend",
    )
    bad = [finding for finding in findings if not finding.ok]
    if blocking := [finding for finding in bad if finding.blocks]:
        raise PlatformUnhealthy("; ".join(f"{finding.name}: {finding.detail} {finding.fix}" for finding in blocking))
    return Infrastructure(warnings=tuple(f"{finding.name}: {finding.detail}" for finding in bad))


def targets(environment: str | None) -> tuple[str, ...] | None:
    """The release targets to check: none for the platform alone, all of them (None) where nothing is named."""
    if environment is None:
        return None
    return () if environment == PLATFORM else (environment,)


def parts(environment: str | None) -> tuple[str, ...]:
    """What a run is about: the named part, else the platform and every environment on Azure that has been provisioned.

    Raises:
        ConfigurationError: There is no such environment, or it is not on Azure.
    """
    settings = get_settings()
    if environment is not None and environment != PLATFORM:
        if release_target(environment, settings).place == "azure":
            return (environment,)
    elif settings.backend == "azure":
        names = environment_names(settings.environments)
        provisioned = provisioned_environments(settings) if environment is None else []
        return (PLATFORM, *(name for name in provisioned if name in names))
    raise ConfigurationError(
        f"{f'`{environment}`' if environment else 'The backend'} is `local`: there is no infrastructure to provision.",
        next_step="`ahc doctor` checks this machine. For Azure: `export AHC_BACKEND=azure`, see docs/azure.md.",
    )


def one_part(environment: str | None, mode: str) -> str:
    """The part that a mode changes, which must be named; raises as `parts` does."""
    if environment is None:
        raise ConfigurationError(
            f"`mode={mode}` needs to know what.",
            next_step=f"Name it: `-p environment={PLATFORM}`, or an environment such as `-p environment=test`.",
        )
    return parts(environment)[0]


@stage("Plan infrastructure", "plan {name}", always=True)
def plan_infrastructure(name: str) -> Planned:
    """Foresee what provisioning would change, and what it would cost; changes nothing.

    Raises:
        ProvisioningFailed: Azure refuses the template.
    """
    settings = get_settings()
    planned = plan(name, compose(name, settings), settings)
    environment = None if name == PLATFORM else load_environment(name, settings.environments)
    _show_costs(name, estimate(planned, environment))
    _show_plan(f"plan-{name}", f"Plan of {name}", planned)
    get_run_logger().info("%s: %s.", name, planned.summary)
    return Planned(plan=planned)


@stage("Provision infrastructure", "provision {name}", always=True)
def provision_infrastructure(name: str) -> Built:
    """Make reality what the template says; every operation is told as it ends. Nothing is deployed where it is so.

    Raises:
        ProvisioningFailed: Names the operation that failed.
    """
    settings = get_settings()
    progress = Progress(f"provision-{name}", f"Provisioning {name}")
    done = provision(
        name,
        compose(name, settings),
        settings,
        tell=lambda operation, ended, total: _tell(progress, operation, ended, total),
    )
    progress.update(1, 1, f"{name} is as its template says")
    _show_operations(done)
    return Built(name=name, changed=done.changed, operations=len(done.operations))


@stage("Look for drift", "compare {name} with its template", always=True)
def detect_drift(name: str) -> Planned:
    """Whether reality left the template; where it did, an event says so."""
    settings = get_settings()
    planned = plan(name, compose(name, settings), settings)
    _show_plan(f"drift-{name}", f"Drift of {name}", planned)
    if planned.effects:
        get_run_logger().warning("%s left its template: %s.", name, planned.summary)
        emit_event(
            DRIFTED,
            resource={"prefect.resource.id": f"ahc.infrastructure.{name}", "prefect.resource.name": name},
            payload={"summary": planned.summary, "resources": [change.resource_id for change in planned.effects]},
        )
    return Planned(plan=planned)


@stage("Remove infrastructure", "remove {name}", always=True)
def remove_infrastructure(name: str, confirm: str) -> Gone:
    """Delete everything of an environment, or of the platform.

    Raises:
        ConfigurationError: `confirm` is not the name, or the platform still has environments; nothing was changed.
    """
    removed = remove(name, get_settings(), confirm=confirm)
    log = get_run_logger()
    log.info("%s is gone%s.", removed.resource_group, "" if removed.existed else " already")
    for vault in removed.kept_vaults:
        log.info("Azure keeps the deleted Key Vault %s for its retention; provisioning again recovers it.", vault)
    return Gone(removed=removed)


@stage("Sweep orphans", "sweep orphans", always=True)
def sweep_orphans(apply: bool) -> Swept:
    """List container groups and images that nothing needs; delete them with `apply`."""
    settings = get_settings()
    unneeded = orphans(settings)
    rows: list[tuple[object, ...]] = [(item.kind, item.name, item.where, item.why) for item in unneeded]
    word = "are deleted" if apply else "would be deleted with `apply=true`"
    create_markdown_artifact(
        key="orphans",
        description=f"{len(unneeded)} orphans",
        markdown=f"# Orphans\n\n{len(unneeded)} {word}.\n\n" + table(("kind", "name", "where", "why"), rows),
    )
    if apply:
        sweep(unneeded, settings)
    return Swept(orphans=unneeded, deleted=apply)


def _tell(progress: Progress, operation: Operation, ended: int, total: int) -> None:
    word = "done" if operation.succeeded else f"failed, {': '.join([*operation.codes[:1], operation.message])}"
    get_run_logger().info("%d of %d: %s %s (%.0f s)", ended, total, operation.label, word, operation.seconds)
    # The last step is the deployment's own end.
    progress.update(ended, total + 1, f"{ended} of {total}: {operation.label}")


def _show_operations(done: Provisioned) -> None:
    rows: list[tuple[object, ...]] = [(item.label, f"{item.seconds:.0f} s") for item in done.operations]
    create_markdown_artifact(
        key=f"provisioned-{done.name}",
        description=f"{done.name}: {len(rows)} operations" if rows else f"{done.name}: nothing to change",
        markdown=f"# {done.name}\n\n"
        + (
            table(("operation", "took"), rows) if rows else "Everything was as the template says; nothing was deployed."
        ),
    )


def _show_plan(key: str, title: str, planned: Plan) -> None:
    shown = planned.of("Create", "Modify", "Delete", "Unsupported")
    rows = [row for change in shown for row in _rows(change)]
    quiet, beside = len(planned.of("NoChange")), planned.of("Ignore")
    summary = f"As the template says: {quiet}."
    if beside:
        summary += f" Beside the template, and left alone: {', '.join(f'{item.type} {item.name}' for item in beside)}."
    create_markdown_artifact(
        key=key,
        description=f"{title}: {planned.summary}",
        markdown=f"# {title}\n\n**{planned.summary}** in `{planned.resource_group}`, {planned.location}.\n\n"
        + (table(("", "resource", "what"), rows) + "\n\n" if rows else "")
        + summary,
    )


def _rows(change: ResourceChange) -> list[tuple[object, ...]]:
    head = (MARKS[change.kind], f"**{_escaped(change.name)}** {change.type.removeprefix('Microsoft.')}")
    what = [f"{item.path}: {_escaped(item.before)} → {_escaped(item.after)}" for item in change.properties]
    first, *rest = what or [_escaped(change.reason) if change.reason else ""]
    return [(*head, first), *(("", "", line) for line in rest)]


def _escaped(value: str) -> str:
    """As plain text: a code span would not wrap, and push the table out of its place."""
    return re.sub(r"([\\`*_<>\[\]])", r"\\\1", value) or "∅"


def _show_costs(name: str, costs: CostEstimate) -> None:
    rows: list[tuple[object, ...]] = [
        (line.resource, line.sku, f"{line.quantity:g} {line.unit}", f"{line.cost:.2f}") for line in costs.lines
    ]
    use: list[tuple[object, ...]] = [(line.resource, line.sku, f"{line.cost:.2f}") for line in costs.on_demand]
    rest = "".join(f"\n- {line}" for line in costs.unpriced)
    create_markdown_artifact(
        key=f"costs-{name}",
        description=f"{name}: about {costs.total:.0f} {costs.currency} a month",
        markdown=f"# What {name} costs\n\n**About {costs.total:.2f} {costs.currency} a month**, by list prices of "
        f"{costs.as_of} for {costs.region} ({costs.source}).\n\n"
        + table(("resource", "SKU", "amount", f"{costs.currency} a month"), rows)
        + ("\n\nPaid only while it runs:\n\n" + table(("", "SKU", f"{costs.currency} an hour"), use) if use else "")
        + (f"\n\nNot in the total:\n{rest}" if rest else ""),
    )
