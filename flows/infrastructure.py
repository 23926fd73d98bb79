"""Is everything there that the platform needs?"""

from tasks.infrastructure import Infrastructure, check_infrastructure
from tasks.pipeline import pipeline


@pipeline("infrastructure", "infrastructure check")
def infrastructure() -> Infrastructure:
    """Check this machine; every finding comes with its fix."""
    return check_infrastructure()
