"""The base job template of a work pool: what a run's process, container or pod is made of."""

import importlib
from typing import Any

from pydantic import BaseModel, ConfigDict

from deployments.server.deployment_files import WorkPoolDefinition
from infra.config.yaml_files import read_mapping, validated
from infra.errors import ConfigurationError


class Variables(BaseModel):
    """The JSON schema of a template's variables."""

    model_config = ConfigDict(extra="allow")

    properties: dict[str, dict[str, Any]]


class JobTemplate(BaseModel):
    """What Prefect expects of a base job template."""

    model_config = ConfigDict(extra="forbid")

    job_configuration: dict[str, Any]
    variables: Variables


def job_template(definition: WorkPoolDefinition) -> dict[str, Any]:
    """The template of a work pool, with the pool's own defaults for its variables.

    Raises:
        ConfigurationError: The file or the worker type isn't there, the template is not valid, or has no such variable.
    """
    if definition.template:
        source = f"{definition.template}: not a base job template"
        template = validated(read_mapping(definition.template), JobTemplate, source).model_dump()
    else:
        template = _of_worker(definition.type)
    variables = template["variables"]["properties"]
    for name, value in definition.job_variables.items():
        if name not in variables:
            raise ConfigurationError(f"A work pool of type {definition.type} has no job variable `{name}`.")
        variables[name]["default"] = value
    return template


def _of_worker(kind: str) -> dict[str, Any]:
    from prefect.workers.base import BaseWorker

    # The registry knows a type once its module is imported.
    if kind == "process":
        importlib.import_module("prefect.workers.process")
    worker = BaseWorker.get_worker_class_from_type(kind)
    if worker is None:
        raise ConfigurationError(f"No installed package brings a worker of type `{kind}`.")
    return worker.get_default_base_job_template()
