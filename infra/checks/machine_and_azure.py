"""What must be there before anything starts: on this machine, and on Azure where that is the backend."""

from collections.abc import Sequence

from infra.config.environments import environment_names, load_environment
from infra.errors import ConfigurationError
from infra.finding import Finding
from infra.local.machine_checks import check_machine
from infra.settings import Settings


def check_infrastructure(settings: Settings, environments: Sequence[str] | None = None) -> list[Finding]:
    """This machine; then the platform and these environments, as far as they are on Azure.

    Args:
        settings: Of this process.
        environments: Names of release targets; all of them where none are given.

    Raises:
        ConfigurationError: One of the given names is none of an environment.
    """
    names = _described(settings) if environments is None else environments
    return [*check_machine(settings), *check_azure(settings, names, required=environments is not None)]


def check_azure(settings: Settings, environments: Sequence[str], *, required: bool = True) -> list[Finding]:
    """The platform on Azure and those of these environments that are there; nothing where all is on this machine.

    Args:
        settings: Of this process.
        environments: Names of release targets.
        required: Whether one that is not provisioned blocks.

    Raises:
        ConfigurationError: One of the names is none of an environment.
    """
    on_azure = [name for name in environments if _is_on_azure(name, settings)]
    if settings.backend == "local" and not on_azure:
        return []
    from infra.azure.checks.platform_and_environments import check_environment, check_platform

    findings = check_platform(settings)
    if any(finding.name == "azure-sign-in" and not finding.ok for finding in findings):
        return findings
    return [*findings, *(item for name in on_azure for item in check_environment(name, settings, required=required))]


def _described(settings: Settings) -> Sequence[str]:
    try:
        return environment_names(settings.environments)
    except ConfigurationError:  # check_machine has a finding about the files
        return ()


def _is_on_azure(name: str, settings: Settings) -> bool:
    return (load_environment(name, settings.environments).backend or settings.backend) == "azure"
