"""`ahc model`: one registered version, and which one is the newest that may be released."""

from typing import Annotated

import typer
from rich.text import Text

from deployments.display import colours as show
from deployments.display.azure_pipelines import in_azure_pipelines, set_output, tag_build
from infra.backend import backend
from infra.config.yaml_files import nearest
from infra.errors import ConfigurationError, ModelNotFound
from infra.ports import ModelRegistry, RegisteredModel
from infra.settings import get_settings

NEWEST = "newest"


def model(
    which: Annotated[
        str, typer.Argument(metavar="MODEL", help="NAME:VERSION, NAME for its newest one, or newest for that of all.")
    ] = NEWEST,
    as_json: Annotated[bool, typer.Option("--json", help="The same facts as JSON.")] = False,
) -> int:
    """Show a registered version; without a version, the newest one with the verdict `promote`.

    In a build of Azure Pipelines, `modelName`, `modelVersion` and `verdict` are output variables of the step, and
    the build has the tag NAME-vVERSION.

    Examples: `ahc model`, `ahc model food`, `ahc model food:7`
    """
    model = find_model(which, backend(get_settings()).registry())
    verdict = model.tags.get("verdict", "")
    if as_json:
        show.show_json(model)
        return 0
    show.show(Text.assemble((model.label, "bold"), f"  {verdict}  ", (model.digest[:12], show.QUIET)))
    if in_azure_pipelines():
        for name, value in (("modelName", model.name), ("modelVersion", model.version), ("verdict", verdict)):
            set_output(name, value)
        tag_build(f"{model.name}-v{model.version}")
    return 0


def find_model(which: str, models: ModelRegistry) -> RegisteredModel:
    """The version that is meant.

    Raises:
        ModelNotFound: There is none.
        ConfigurationError: There is no such name, or the version is no number.
    """
    name, colon, version = which.partition(":")
    names = models.names()
    if name != NEWEST and name not in names:
        raise ConfigurationError(
            f"There is no model `{name}`: {nearest(name, names) if names else 'none is registered.'}"
        )
    if colon:
        if not version.removeprefix("v").isdigit():
            raise ConfigurationError(f"`{which}` names no version: say it as in `{name}:7`.")
        return models.get(name, int(version.removeprefix("v")))
    versions = [item for one in (names if name == NEWEST else [name]) for item in models.versions(one)]
    promoted = [item for item in versions if item.tags.get("verdict") == "promote"]
    if not promoted:
        raise ModelNotFound("No registered version has the verdict `promote`.")
    return max(promoted, key=lambda item: (item.created, item.version))
