"""`ahc run`: one flow in this process."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from deployments.cli.flow_catalogue import load_flow
from deployments.cli.in_process import connect, outcome, run_here
from deployments.display import colours as show
from deployments.display.azure_pipelines import in_azure_pipelines, set_outputs, upload_summary
from deployments.runs.parameters import parse_parameters
from infra.settings import get_settings

if TYPE_CHECKING:
    from uuid import UUID


def run(
    flow: Annotated[
        str,
        typer.Argument(
            help="lifecycle, data-validation, training, release, rollback, key-rotation, images, scoring-records, "
            "infrastructure."
        ),
    ],
    parameters: Annotated[
        list[str] | None, typer.Option("-p", metavar="KEY=VALUE", help="A parameter; `training.epochs=3`.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--params", metavar="FILE", help="YAML or JSON file of parameters.")
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what the run published as Markdown, such as a plan.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="How it ended, as JSON.")] = False,
) -> int:
    """Run one flow in this process and exit by its outcome.

    Records the run with the Prefect server if one answers, otherwise with one of its own on the state under AHC_HOME,
    so that it shows in the UI of the next `ahc up`. In a build of Azure Pipelines, the plain values of the flow's
    result are output variables of the step.

    Examples: `ahc run infrastructure`, `ahc run data-validation -p data.source=photos/`,
    `ahc run lifecycle --params mine.yaml -p training.epochs=3`
    """
    settings = get_settings()
    notice = connect(settings)
    from prefect.utilities.callables import parameter_schema

    schema = parameter_schema(load_flow(flow)).model_dump_for_openapi()
    given = parse_parameters(parameters or [], file, schema)
    if notice and not as_json:
        show.show(Text(notice, style=show.WAITING))
    state = run_here(flow, given)
    code = outcome(state)
    if summary is not None:
        _write_summary(state.state_details.flow_run_id, summary)
    if in_azure_pipelines() and not as_json:
        if summary is not None:
            upload_summary(summary)
        if state.is_completed():
            set_outputs(state.result())
    if as_json:
        facts = {
            "run": state.state_details.flow_run_id,
            "state": state.name,
            "message": state.message,
            "exit_code": code,
        }
        show.show_json(facts)
    else:
        style = show.state_style(state.type.value, state.name or "")
        show.show(Text.assemble(show.marked(state.name or "", style), f"  {state.message or ''}"))
    return code


def _write_summary(run: "UUID | None", file: Path) -> None:
    """The Markdown artifacts of a run, in the order in which it published them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    assert run is not None
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])))
    shown = sorted((item for item in found if item.type == "markdown"), key=lambda item: str(item.created))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n\n".join(str(item.data) for item in shown) + "\n", encoding="utf-8")
