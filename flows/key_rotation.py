"""New keys for an endpoint, so that no client is locked out."""

from tasks.framework.pipeline import pipeline
from tasks.operations.key_rotation import Rotated, replace_primary, retire_secondary, verify_keys
from tasks.release.targets import environment_file


@pipeline("key-rotation", "rotate the keys of {environment}")
def key_rotation(environment: str, reason: str = "regular rotation") -> Rotated:
    """A new primary key; the one of before stays valid as the secondary, until the next rotation.

    Args:
        environment: Whose keys.
        reason: Why; shown on the run.
    """
    target = environment_file(environment)
    retire_secondary(target)
    replace_primary(target)
    return verify_keys(target, reason)
