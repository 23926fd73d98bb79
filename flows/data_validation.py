"""From a source of images to a validated, immutable manifest."""

from infra.ports import RegisteredModel
from model.validation.report import ValidationConfig
from tasks.framework.pipeline import pipeline, rename_run
from tasks.training.data import (
    DataRequest,
    ValidatedData,
    build_data_manifest,
    list_data,
    locate_data,
    show_findings,
    validate_data,
)

DEFAULT_DATA = DataRequest()
DEFAULT_VALIDATION = ValidationConfig()


@pipeline("data-validation", "data-validation {data.source}")
def data_validation(
    data: DataRequest = DEFAULT_DATA,
    validation: ValidationConfig = DEFAULT_VALIDATION,
    champion: RegisteredModel | None = None,
) -> ValidatedData:
    """List the images of a source, split them, and check them with Great Expectations.

    Args:
        data: Which images.
        validation: What is allowed; each check blocks or warns.
        champion: The model with whose data the shares of the labels are compared.
    """
    source = locate_data(data)
    manifest = build_data_manifest(source, data.split)
    rename_run(f"data-validation {manifest.data.label}")
    list_data(manifest.data)
    checked = validate_data(manifest.data, validation, champion)
    show_findings(checked.report)
    return ValidatedData(manifest=manifest, validation=checked)
