"""Environments as flows name them."""

from infra.config.environments import Environment, load_environment
from infra.errors import ConfigurationError
from infra.settings import get_settings


def check_targets(names: tuple[str, ...]) -> None:
    """Refuse unknown environments, and those that need an approval, before any work is done.

    Raises:
        ConfigurationError: Names the environment.
    """
    for name in names:
        if environment_file(name).gates.approval:
            raise ConfigurationError(
                f"`release_to` names {name}, where a person must approve, and a lifecycle doesn't wait for people.",
                next_step=f"Release to {name} on its own: `ahc trigger release/{name} -p name=NAME -p version=N`.",
            )


def environment_file(name: str) -> Environment:
    """The environment file of this name."""
    return load_environment(name, get_settings().environments)
