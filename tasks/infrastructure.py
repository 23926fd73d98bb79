"""Infrastructure: is everything there that the next hour needs?"""

from infra.errors import PlatformUnhealthy
from infra.local.checks import check_machine
from infra.settings import get_settings
from tasks.artifacts import create_markdown_artifact, table
from tasks.stage import Result, stage


class Infrastructure(Result):
    """What was checked and is good enough."""

    warnings: tuple[str, ...]


@stage("Check infrastructure", "check this machine", always=True)
def check_infrastructure() -> Infrastructure:
    """Check memory, disk, packages and access.

    Raises:
        PlatformUnhealthy: Something blocks; the message names each with its fix.
    """
    findings = check_machine(get_settings())
    rows: list[tuple[object, ...]] = [
        ("ok" if finding.ok else f"**{finding.severity}**", finding.name, finding.detail, finding.fix)
        for finding in findings
    ]
    create_markdown_artifact(
        key="infrastructure",
        markdown="# Infrastructure\n\n" + table(("result", "check", "found", "fix"), rows),
        description="What this machine has",
    )
    bad = [finding for finding in findings if not finding.ok]
    blocking = [finding for finding in bad if finding.severity == "blocks"]
    if blocking:
        raise PlatformUnhealthy("; ".join(f"{finding.name}: {finding.detail} {finding.fix}" for finding in blocking))
    return Infrastructure(warnings=tuple(f"{finding.name}: {finding.detail}" for finding in bad))
