"""A run on one page of Markdown, for the summary of a build."""

from deployments.display.azure_pipelines import printable
from deployments.runs.report import Evidence, GateCheck, Report


def markdown(report: Report) -> str:
    """How it ended and where to look; then the verdict with its evidence, or the failure card."""
    evidence = report.evidence
    facts: list[tuple[str, ...]] = [
        ("deployment", report.deployment),
        ("run", f"[{report.run}]({report.link})" if report.link else report.run),
        ("took", f"{report.seconds:.0f} s"),
        ("exit code", str(report.exit_code)),
        *_model(evidence),
        *((f"live in {name}", url) for name, url in evidence.endpoints.items()),
    ]
    parts = [f"# {report.run}: {report.ending}", table(("", ""), facts)]
    if report.message and report.followed_for is None and not (report.failed and report.card):
        parts.append(report.message)
    if evidence.gates:
        rows = [_row(check) for check in evidence.gates]
        parts += ["## Gates", table(("result", "gate", "check", "value", "limit", "detail"), rows)]
    if report.failed and not report.not_promoted:
        runbook = f"Runbook: `{report.runbook}`"
        parts.append(
            report.card or (f"Continue with `ahc why {report.run_id}`. {runbook}" if report.run_id else runbook)
        )
    elif evidence.summary:
        parts.append(evidence.summary)
    return printable("\n\n".join(parts)) + "\n"


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _model(evidence: Evidence) -> list[tuple[str, str]]:
    if not evidence.model_name:
        return []
    verdict = f": {evidence.verdict}. {evidence.reason}" if evidence.verdict else ""
    return [("model", f"**{evidence.model_name} v{evidence.model_version}**{verdict}")]


def _row(check: GateCheck) -> tuple[str, ...]:
    figures = ("" if figure is None else f"{figure:.4g}" for figure in (check.value, check.limit))
    return ("passed" if check.passed else "**FAILED**", check.gate, check.check, *figures, check.detail)
