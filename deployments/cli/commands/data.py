"""`ahc data`: sample data sets to try the platform with."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from deployments.display import colours as show
from infra.stores import sample_data as samples

AsJson = Annotated[bool, typer.Option("--json", help="The facts as JSON.")]


def fetch(
    name: Annotated[str, typer.Argument(help="food or digits; `ahc data list` says more.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for <label>/<image> files.")],
    as_json: AsJson = False,
) -> int:
    """Download a sample data set into a folder of <label>/<image> files.

    The folder appears when it is complete; fetching again is quick.

    Examples: `ahc data fetch food photos/`, then `ahc up --data photos/`
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=as_json) as progress:
        bar = progress.add_task(f"Fetching {name}", total=None)
        folder = samples.fetch(name, directory, lambda done, total: progress.update(bar, completed=done, total=total))
    labels = sorted(item.name for item in folder.iterdir() if item.is_dir())
    images = sum(1 for item in folder.glob("*/*"))
    if as_json:
        show.show_json({"name": name, "directory": folder, "images": images, "labels": labels})
        return 0
    show.show(
        f"{images} images of {len(labels)} classes in {folder}: {', '.join(labels)}.",
        Text(f"  Licence: {samples.SAMPLES[name].licence}", style=show.QUIET),
        Text(f"  Train on them: ahc up --data {directory}", style=show.QUIET),
    )
    return 0


def list_samples(as_json: AsJson = False) -> int:
    """List the sample data sets, with where they come from and their licences.

    Example: `ahc data list`
    """
    known = list(samples.SAMPLES.values())
    if as_json:
        show.show_json(known)
        return 0
    for sample in known:
        show.show(
            Text.assemble((sample.name, "bold"), f"  {sample.description}"),
            Text(f"  classes  {', '.join(sample.classes)}", style=show.QUIET),
            Text(f"  source   {sample.source}", style=show.QUIET),
            Text(f"  licence  {sample.licence}", style=show.QUIET),
        )
    return 0
