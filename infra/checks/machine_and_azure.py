"""What must be there before anything starts: on this machine, and on Azure where that is the backend."""

from collections.abc import Sequence

from infra.backend import BACKENDS, release_target
from infra.config.environments import environment_names
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
    on_azure = [name for name in environments if release_target(name, settings).place == "azure"]
    if settings.backend == "local" and not on_azure:
        return []
    return BACKENDS["azure"](settings).checks(on_azure, required=required)


def _described(settings: Settings) -> Sequence[str]:
    try:
        return environment_names(settings.environments)
    except ConfigurationError:  # check_machine has a finding about the files
        return ()
