"""`ahc doctor`: everything this machine or one environment needs, each finding with its fix."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from deployments.display import colours as show
from infra.checks.machine_and_azure import check_azure, check_infrastructure
from infra.errors import PlatformUnhealthy
from infra.finding import Check, Finding, run_check
from infra.settings import Settings, get_settings


def doctor(
    environment: Annotated[str, typer.Option("--env", metavar="ENV", help="Check this environment's endpoint.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
) -> int:
    """Check what this machine and Azure offer, or with --env an environment; every finding comes with its fix.

    Exits with 33 (PlatformUnhealthy) if a finding blocks; warnings do not.

    Examples: `ahc doctor`, `ahc doctor --env production`, `ahc doctor --json`
    """
    from infra.checks.services import check_environment, check_services

    settings = get_settings()
    if environment:
        findings = [*check_azure(settings, [environment]), *check_environment(environment, settings)]
        if all(finding.ok for finding in findings if finding.name in {"endpoint", "key"}):
            findings.append(check_answers(environment, settings))
    else:
        findings = [*check_infrastructure(settings), *check_services(settings)]
    if as_json:
        show.show_json({"healthy": not any(item.blocks for item in findings), "findings": findings})
    else:
        _print(findings)
    return PlatformUnhealthy.exit_code if any(finding.blocks for finding in findings) else 0


def check_answers(environment: str, settings: Settings) -> Finding:
    """Whether the endpoint answers the golden images of its own model as that model's bundle says."""

    def find(name: str) -> Finding:
        wrong, count = _wrong_answers(environment, settings)
        if not wrong:
            return Finding.of(name, f"all {count} golden images are answered as expected")
        detail = f"{len(wrong)} of {count} golden images answered wrong: {', '.join(wrong[:5])}"
        return Finding.of(name, detail, f"`ahc rollback {environment}`, then look at the endpoint's log.")

    return run_check(Check("answers", find), outage="blocks")


def _wrong_answers(environment: str, settings: Settings) -> tuple[list[str], int]:
    from infra.backend import backend, release_target
    from infra.config.environments import endpoint_key
    from infra.releases.scoring_client import ScoringClient
    from model.bundle.read import open_bundle

    status = release_target(environment, settings).endpoint().status()
    if status.live is None:
        return [], 0
    models = backend(settings).registry()
    with tempfile.TemporaryDirectory() as folder:
        model = models.get(status.live.name, status.live.version)
        bundle = open_bundle(models.download(model, Path(folder)), digest=status.live.digest)
        key = release_target(environment, settings).secrets().get(endpoint_key(environment))
        with ScoringClient(status.url, key) as client:
            wrong = []
            for image in bundle.golden:
                answer = {item["label"]: item["probability"] for item in client.score(image.read())["predictions"]}
                if not image.matches([answer.get(label, -1.0) for label in bundle.labels]):
                    wrong.append(image.path.name)
            return wrong, len(bundle.golden)


def _print(findings: list[Finding]) -> None:
    rows = [(_mark(finding), finding.name, finding.detail) for finding in findings]
    show.show(show.table(("", "check", "found"), rows))
    bad = [finding for finding in findings if not finding.ok]
    if bad:
        show.show("", Text("What to do", style="bold"))
        for finding in sorted(bad, key=lambda item: not item.blocks):
            show.show(Text.assemble("  ", _mark(finding), f" {finding.name}: {finding.fix}"))
    else:
        show.show("", show.marked("Everything is as it should be.", show.GOOD))


def _mark(finding: Finding) -> Text:
    if finding.ok:
        return show.marked("ok", show.GOOD)
    return show.marked(finding.severity, show.BAD if finding.blocks else show.WAITING)
