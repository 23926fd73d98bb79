"""What `ahc up` says when the lifecycle has ended: the summary, or the failure card."""

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.panel import Panel
from rich.text import Text

from deployments.display.colours import BAD, GOOD, QUIET, WAITING, marked, table
from infra.backend import release_target
from infra.settings import Settings

if TYPE_CHECKING:
    from tasks.lifecycle_summary import Summary

STYLES = {"promote": GOOD, "reject": BAD, "inconclusive": WAITING}


def summary_view(summary: "Summary", settings: Settings, link: str) -> RenderableType:
    """Verdict with evidence, accuracy, endpoints with a ready-to-paste call, links, and what was reused."""
    accuracy = summary.accuracy
    parts: list[RenderableType] = [
        Text.assemble(
            marked(summary.verdict, STYLES.get(summary.verdict, WAITING)),
            f"  {summary.model.label}: {summary.reason}",
        ),
        Text(
            f"Accuracy on the test split {accuracy.value:.3f} (95 % interval {accuracy.low:.3f} to {accuracy.high:.3f})"
        ),
        table(("check", "value", "limit", "", "evidence"), [_check(check) for check in summary.checks]),
        table(("step", "result", "took", "from"), [_step(step) for step in summary.steps]),
    ]
    if summary.endpoints:
        parts.append(table(("endpoint", "listens at"), [(name, url) for name, url in summary.endpoints.items()]))
        parts.append(Text(_call(summary, settings), style="bold", no_wrap=True, overflow="ignore"))
    places = {"Prefect": link, "MLflow": summary.tracking_link}
    parts.append(table(("look at", ""), [*places.items(), *summary.reports.items()]))
    return Group(*(item for part in parts for item in (part, Text())))


def as_summary(result: Any) -> "Summary | None":
    """The summary that a lifecycle answered; a stored result comes back as plain JSON."""
    from pydantic import ValidationError

    from tasks.lifecycle_summary import Summary

    try:
        return Summary.model_validate(result)
    except ValidationError:
        return None


def _check(check: Any) -> tuple[RenderableType, ...]:
    passed = marked("passed" if check.passed else "failed", GOOD if check.passed else BAD)
    return (str(check.name), _figure(check.value), _figure(check.limit), passed, str(check.detail))


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value if value is not None else "")


def _step(step: Any) -> tuple[RenderableType, ...]:
    origin = Text(f"↺ reused from {step.reused_from}", style="cyan") if step.reused_from else Text("made now")
    return (str(step.name), str(step.detail), f"{step.seconds:.1f} s", origin)


def _call(summary: "Summary", settings: Settings) -> str:
    """A request that can be pasted; the key stays in its file."""
    environment, url = next(iter(summary.endpoints.items()))
    header = release_target(environment, settings).secrets().curl_header(environment)
    return (
        f"curl -H {header} -H 'Content-Type: image/jpeg' --data-binary @photo.jpg {url}/score\n"
        f"ahc score photo.jpg --env {environment}"
    )


def failure_view(name: str, message: str, card: str | None, link: str, log_folder: str) -> RenderableType:
    """The failure card, or what is known where the run had no time to write one."""
    if card is not None:
        body: RenderableType = Markdown(card)
    else:
        body = Text(f"{message}\n\nLogs: {log_folder}\nContinue with: ahc up", overflow="fold")
    return Group(Panel(body, title=name, title_align="left", border_style="red"), Text(f"Run: {link}", style=QUIET))
