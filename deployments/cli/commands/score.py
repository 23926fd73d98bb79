"""`ahc score`: image files against an environment's endpoint."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from deployments.display import colours as show
from infra.config.environments import endpoint_key, environment_names
from infra.errors import AccessDenied, EndpointUnreachable
from infra.releases.scoring_client import ScoringClient
from infra.runs.telemetry import traceparent
from infra.settings import get_settings
from model.errors import KnownError, SourceUnreadable
from model.values import Frozen

AT_ONCE = 4


class Scored(Frozen):
    """What became of one file: an answer of the endpoint, or an error."""

    file: str
    trace_id: str
    """Under which the endpoint's spans, logs and records of this request are found."""
    answer: dict[str, Any] | None = None
    error: str | None = None
    message: str = ""
    next_step: str = ""
    exit_code: int = 0


def score(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE..", help="JPEG, PNG or WebP files.")],
    environment: Annotated[
        str, typer.Option("--env", metavar="ENV", help="Whose endpoint; by default the first one, `test`.")
    ] = "",
    top: Annotated[int, typer.Option(min=1, help="How many labels to show for an image.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="The endpoint's answers as JSON.")] = False,
) -> int:
    """Score image files against an environment's endpoint.

    Without --env that is the first environment of a release, which has the newest model and no client applications. A
    file that can't be scored is named and does not stop the others; the exit code is that of the worst.

    Examples: `ahc score photo.jpg`, `ahc score photos/*.jpg --top 1`, `ahc score photo.jpg --env production --json`
    """
    from infra.backend import release_target

    settings = get_settings()
    name = environment or environment_names(settings.environments)[0]
    status = release_target(name, settings).endpoint().status()
    url = status.url
    try:
        key = release_target(name, settings).secrets().get(endpoint_key(name))
    except AccessDenied:
        if status.state == "stopped":
            raise EndpointUnreachable(f"Nothing serves in `{name}` yet.") from None
        raise
    with ScoringClient(url, key) as client:
        results = list(_tell(score_files(client, images), top, quiet=as_json))
    _require_an_endpoint(results, name)
    if as_json:
        show.show_json({"environment": name, "url": url, "results": results})
    else:
        _tell_totals(results, name)
    return max(item.exit_code for item in results)


def score_files(client: ScoringClient, images: Sequence[Path]) -> Iterator[Scored]:
    """Score files, a few at a time; answers in the order of the files."""
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        yield from pool.map(partial(_score_file, client), images)


def _score_file(client: ScoringClient, image: Path) -> Scored:
    trace = traceparent()
    trace_id = trace.split("-")[1]
    try:
        answer = client.score(_read(image), trace=trace)
    except KnownError as error:
        return Scored(
            file=str(image),
            trace_id=trace_id,
            error=type(error).__name__,
            message=str(error),
            next_step=error.next_step,
            exit_code=error.exit_code,
        )
    return Scored(file=str(image), trace_id=trace_id, answer=answer)


def _read(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise SourceUnreadable(f"{image} can't be read: {error.strerror}.", next_step="Name image files.") from error


def _require_an_endpoint(results: Sequence[Scored], environment: str) -> None:
    """One error instead of one a file, where nobody answered at all."""
    if all(item.error == EndpointUnreachable.__name__ for item in results):
        raise EndpointUnreachable(f"The endpoint of `{environment}` can't score: {results[0].message}")


def _tell(results: Iterator[Scored], top: int, *, quiet: bool) -> Iterator[Scored]:
    """Show each result as it comes, and pass it on."""
    for item in results:
        if not quiet and item.error != EndpointUnreachable.__name__:
            _print(item, top)
        yield item


def _print(item: Scored, top: int) -> None:
    if item.answer is None:
        show.show(Text.assemble(show.marked(item.file, show.BAD), f"  {item.message}"))
        return
    best, *others = item.answer["predictions"][:top]
    head = f"{best['label']} {best['probability']:.1%}"
    show.show(Text.assemble((item.file, "bold"), "  ", (head, show.GOOD)))
    for prediction in (best, *others) if others else ():
        share = prediction["probability"]
        show.show(Text.assemble(f"  {prediction['label']:<24} {share:6.1%} ", (show.bar(share), show.QUIET)))


def _tell_totals(results: Sequence[Scored], environment: str) -> None:
    models = {f"{item.answer['model']['name']} v{item.answer['model']['version']}" for item in results if item.answer}
    failed = [item for item in results if item.error]
    by = f" by {', '.join(sorted(models))} in {environment}" if models else f" in {environment}"
    counts = f"{len(results) - len(failed)} scored{by}" + (f", {len(failed)} not" if failed else "")
    show.show(Text(counts, style=show.WAITING if failed else show.QUIET))
    for item in failed:
        if item.error == EndpointUnreachable.__name__:
            show.show(Text.assemble(show.marked(item.file, show.BAD), f"  {item.message}"))
