"""The base job template of a work pool: what a run's process, container or pod is made of."""

import importlib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from deployments.server.deployment_files import WorkPoolDefinition
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
    template = _from_file(definition.template) if definition.template else _of_worker(definition.type)
    variables = template["variables"]["properties"]
    for name, value in definition.job_variables.items():
        if name not in variables:
            raise ConfigurationError(f"A work pool of type {definition.type} has no job variable `{name}`.")
        variables[name]["default"] = value
    return template


def _from_file(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return JobTemplate.model_validate(content).model_dump()
    except OSError as error:
        raise ConfigurationError(f"Can't read {path}: {error.strerror or error}.") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(f"`{'.'.join(map(str, item['loc']))}`: {item['msg']}" for item in error.errors())
        raise ConfigurationError(f"{path}: not a base job template: {wrong}") from error


def _of_worker(kind: str) -> dict[str, Any]:
    from prefect.workers.base import BaseWorker

    # The registry knows a type once its module is imported.
    if kind == "process":
        importlib.import_module("prefect.workers.process")
    worker = BaseWorker.get_worker_class_from_type(kind)
    if worker is None:
        raise ConfigurationError(f"No installed package brings a worker of type `{kind}`.")
    return worker.get_default_base_job_template()
