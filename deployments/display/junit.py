"""The gates of a run as tests: JUnit's XML, as Azure Pipelines' PublishTestResults and others read it."""

from datetime import UTC
from pathlib import Path
from xml.etree import ElementTree as ET

from deployments.display.azure_pipelines import printable
from deployments.runs.report import GateCheck, Report


def write_junit(report: Report, file: Path) -> None:
    """Write one test case for the run itself, and one for each check of its gates.

    A check that failed is a failure; a run that ended by a fault, or that nobody followed to its end, is an error
    with its failure card.
    """
    gates = report.evidence.gates
    errors = int(report.failed and not report.not_promoted)
    counts = {
        "tests": str(1 + len(gates)),
        "failures": str(len(report.failed_gates)),
        "errors": str(errors),
        "skipped": "0",
        "time": f"{report.seconds:.3f}",
    }
    root = ET.Element("testsuites", {"name": printable(report.deployment), **counts})
    suite = ET.SubElement(root, "testsuite", {"name": printable(report.deployment), **counts})
    if report.started is not None:
        suite.set("timestamp", f"{report.started.astimezone(UTC):%Y-%m-%dT%H:%M:%S}")
    properties = ET.SubElement(suite, "properties")
    for name, value in (("run", report.run_id), ("link", report.link), ("state", report.state)):
        ET.SubElement(properties, "property", {"name": name, "value": printable(value)})
    run = _case(suite, report.deployment, f"run of {report.deployment}", report.seconds)
    if errors:
        message = report.ending if report.followed_for is not None else f"{report.state}: {report.message}"
        error = ET.SubElement(run, "error", {"message": printable(message), "type": printable(report.state)})
        error.text = printable(report.card or message)
    for check in gates:
        _add(suite, report.deployment, check)
    file.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)


def _add(suite: ET.Element, deployment: str, check: GateCheck) -> None:
    case = _case(suite, f"{deployment}.{check.gate}", f"{check.gate}: {check.check}", 0)
    figures = [
        f"{name} {figure:.6g}"
        for name, figure in (("value", check.value), ("limit", check.limit))
        if figure is not None
    ]
    if not check.passed:
        failure = ET.SubElement(case, "failure", {"message": printable(check.detail or check.check), "type": "gate"})
        failure.text = printable("\n".join([check.detail, *figures]))


def _case(suite: ET.Element, group: str, name: str, seconds: float) -> ET.Element:
    named = {"classname": printable(group), "name": printable(name), "time": f"{seconds:.3f}"}
    return ET.SubElement(suite, "testcase", named)
