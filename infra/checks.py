"""What must be there before anything starts: on this machine, and on Azure where that is the backend."""

from collections.abc import Sequence

from infra.environments import environment_names, load_environment
from infra.errors import ConfigurationError
from infra.findings import Finding
from infra.local.checks import check_machine
from infra.settings import Settings


def check_infrastructure(settings: Settings, environments: Sequence[str] | None = None) -> list[Finding]:
    """This machine; then the platform and these environments, as far as they are on Azure. Never raises.

    Args:
        settings: Of this process.
        environments: Names of release targets; all of them where none are given.
    """
    findings = check_machine(settings)
    if settings.backend == "azure":
        from infra.azure.checks import check_platform

        findings += check_platform(settings)
    try:
        names = environment_names(settings.environments) if environments is None else environments
        on_azure = [name for name in names if _is_on_azure(name, settings)]
    except ConfigurationError:  # check_machine has a finding about the files
        return findings
    if on_azure and not any(finding.name == "azure-sign-in" and not finding.ok for finding in findings):
        from infra.azure.checks import check_environment

        for name in on_azure:
            findings += check_environment(name, settings)
    return findings


def _is_on_azure(name: str, settings: Settings) -> bool:
    return (load_environment(name, settings.environments).backend or settings.backend) == "azure"
