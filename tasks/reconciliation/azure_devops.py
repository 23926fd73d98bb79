"""What Azure DevOps is told: of new versions, so that its CD pipeline starts, and of decisions made in Prefect."""

from prefect import get_run_logger

from infra.azure_devops.project_file import ProjectFile, read_project_file
from infra.backend import backend
from infra.config.environments import environment_names
from infra.errors import ModelNotFound
from infra.ports import LiveModel
from infra.settings import Settings, get_settings
from tasks.framework.stage import Result, stage
from tasks.reconciliation.reconcile import Taken


@stage("Tell Azure DevOps", "tell Azure DevOps", always=True)
def tell_azure_devops(taken: Taken) -> Result:
    """Start its CD pipeline for each version with the verdict `promote`; give its approvals Prefect's decisions.

    Nothing where `deployments/devops.yaml` names no organisation. A version may be told twice, never not at all: its
    notice ends after this.

    Raises:
        ServiceUnavailable, DevOpsRefused, AccessDenied: It can't be told; notices come back.
    """
    settings = get_settings()
    project_file = read_project_file(settings.devops)
    if project_file.organisation is None:
        return Result()
    promoted = _promoted(taken, settings)
    if promoted:
        _announce(project_file, promoted, settings)
    if project_file.mirror:
        _carry_over(project_file, settings)
    return Result()


def _promoted(taken: Taken, settings: Settings) -> list[LiveModel]:
    """Each version once, however often it was told of."""
    versions: dict[tuple[str, int], LiveModel] = {}
    for notice in taken.notices:
        if notice.name is None or notice.version is None:
            continue
        try:
            model = backend(settings).registry().get(notice.name, notice.version)
        except ModelNotFound:
            continue
        if model.tags.get("verdict") == "promote":
            versions[model.name, model.version] = model.as_live
    return list(versions.values())


def _announce(project_file: ProjectFile, models: list[LiveModel], settings: Settings) -> None:
    from infra.azure_devops.webhook import announce, read_webhook_secret

    secret = read_webhook_secret(settings)
    for model in models:
        announce(project_file, model, secret)
        get_run_logger().info("Azure DevOps is told of %s.", model.label)


def _carry_over(project_file: ProjectFile, settings: Settings) -> None:
    from infra.azure_devops.approvals import carry_over
    from infra.azure_devops.client import DevOps
    from infra.azure_devops.sign_in import authorization

    assert project_file.organisation is not None
    events = backend(settings).ledger().events
    with DevOps(project_file.organisation, authorization) as devops:
        for item in carry_over(devops, project_file, events, environment_names(settings.environments)):
            get_run_logger().info(
                "Build %d: %s for %s is %s by %s.", item.build, item.version, item.environment, item.decision, item.by
            )
