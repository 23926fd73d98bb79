"""What is deployed: a main template with its modules inlined, and its parameters.

The templates are in `infra/arm/`. A parameter's value comes from `NAME.json` in `AHC_AZURE_PARAMETERS`, or, where it is
said somewhere else already, from settings and the environment's file; the template's own default is the last resort.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from infra.azure.access.resources import PLATFORM, resource_group, subscription
from infra.config.environments import Environment, load_environment
from infra.config.yaml_files import nearest
from infra.errors import ConfigurationError
from infra.settings import PROJECT, Settings
from model.values import Frozen

TEMPLATES: Final = PROJECT / "infra" / "arm"
DEPLOYMENT: Final = "Microsoft.Resources/deployments"
SET_ELSEWHERE: Final = {
    "prefix": "AHC_AZURE_PREFIX",
    "environment": "the environment file's `name`",
    "endpoint": "the environment file's `azure.endpoint`",
    "private": "the environment file's `azure.private`",
    "latencyP95Ms": "the environment file's `gates.latency_p95_ms`",
    "platformResourceGroup": "AHC_AZURE_PREFIX",
    "platformSubscriptionId": "AHC_AZURE_SUBSCRIPTION_ID",
}
"""Parameters that no parameter file may set, and what sets them."""
TYPES: Final[dict[str, tuple[type, str]]] = {
    "string": (str, "a text"),
    "int": (int, "a whole number"),
    "bool": (bool, "true or false"),
    "array": (list, "a list"),
    "object": (dict, "an object"),
}
LIMITS: Final[dict[str, tuple[Callable[[Any, Any], bool], str]]] = {
    "allowedValues": (lambda value, limit: value in limit, "is none of"),
    "minValue": (lambda value, limit: value >= limit, "is below"),
    "maxValue": (lambda value, limit: value <= limit, "is above"),
    "minLength": (lambda value, limit: len(value) >= limit, "is shorter than"),
    "maxLength": (lambda value, limit: len(value) <= limit, "is longer than"),
}


class Composed(Frozen):
    """One self-contained deployment into the resource group of the platform or of an environment."""

    template: dict[str, Any]
    parameters: dict[str, Any]
    """As ARM takes them: {"name": {"value": ...}}."""
    location: str


def compose(name: str, settings: Settings) -> Composed:
    """The deployment of `platform`, or of the environment of this name.

    Args:
        name: `platform` or an environment's name.
        settings: Say prefix, subscription, environment files and parameter files.

    Raises:
        ConfigurationError: There is no such environment, or the parameter file is missing or wrong; all that is wrong
            is named with file and key.
    """
    if name == PLATFORM:
        main, preset = "platform.json", {"prefix": settings.azure_prefix}
    else:
        environment = load_environment(name, settings.environments)
        main, preset = "environment.json", _from_environment(environment, settings)
    template = _inlined(_json(TEMPLATES / main))
    path = settings.azure_parameters / f"{name}.json"
    parameters = _from_file(path)
    values = {key: {"value": value} for key, value in preset.items()}
    if problems := [*_problems(parameters, template["parameters"]), *_contradictions(parameters, preset)]:
        raise ConfigurationError(f"{path}: {'; '.join(problems)}.")
    return Composed(
        template=template,
        parameters={**parameters, **values},
        location=parameters["location"]["value"],
    )


def _from_environment(environment: Environment, settings: Settings) -> dict[str, Any]:
    azure = environment.azure
    preset = {
        "prefix": settings.azure_prefix,
        "environment": environment.name,
        "endpoint": azure.endpoint,
        "private": azure.private,
        "latencyP95Ms": max(1, round(environment.gates.latency_p95_ms)),
        "platformResourceGroup": resource_group(PLATFORM, settings),
    }
    if azure.subscription_id:
        preset["platformSubscriptionId"] = subscription(settings)
    return preset


def _inlined(main: dict[str, Any]) -> dict[str, Any]:
    return {**main, "resources": [_with_module(resource) for resource in main["resources"]]}


def _with_module(resource: dict[str, Any]) -> dict[str, Any]:
    if resource["type"] != DEPLOYMENT:
        return resource
    properties = dict(resource["properties"])
    link = properties.pop("templateLink")
    return {**resource, "properties": {**properties, "template": _json(TEMPLATES / link["relativePath"])}}


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _from_file(path: Path) -> dict[str, Any]:
    """The parameters of a file, as ARM takes them."""
    try:
        content = _json(path)
    except FileNotFoundError as error:
        shipped = "platform" if path.stem == PLATFORM else "test"
        raise ConfigurationError(
            f"{path} is missing, so `{path.stem}` has no parameters.",
            next_step=f"Copy infra/arm/parameters/{shipped}.json to {path}, and adapt it.",
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: not valid JSON: {error}") from error
    parameters = content.get("parameters") if isinstance(content, dict) else None
    if not isinstance(parameters, dict):
        raise ConfigurationError(f"{path}: the key `parameters` with an object is missing.")
    return parameters


def _problems(parameters: Mapping[str, Any], declared: Mapping[str, Any]) -> Iterator[str]:
    for name, item in parameters.items():
        if name in SET_ELSEWHERE:
            yield f"`{name}` is not set here but by {SET_ELSEWHERE[name]}"
        elif name not in declared:
            yield f"unknown parameter `{name}`: {nearest(name, sorted(set(declared) - set(SET_ELSEWHERE)))}".rstrip(".")
        elif not isinstance(item, dict) or set(item) != {"value"}:
            yield f'`{name}`: expected {{"value": ...}}'
        else:
            yield from _wrong_value(name, item["value"], declared[name])
    for name, declaration in declared.items():
        if "defaultValue" not in declaration and name not in parameters and name not in SET_ELSEWHERE:
            yield f"`{name}` is missing ({declaration['metadata']['description'].rstrip('.')})"


def _wrong_value(name: str, value: Any, declaration: Mapping[str, Any]) -> Iterator[str]:
    kind, words = TYPES[declaration["type"]]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        yield f"`{name}`: expected {words}, found {json.dumps(value)}"
        return
    for limit, (holds, words) in LIMITS.items():
        if limit in declaration and not holds(value, declaration[limit]):
            yield f"`{name}`: {json.dumps(value)} {words} {json.dumps(declaration[limit])}"


def _contradictions(parameters: Mapping[str, Any], preset: Mapping[str, Any]) -> Iterator[str]:
    """Values that are right by themselves, and wrong together."""
    values = {**{name: item.get("value") for name, item in parameters.items() if isinstance(item, dict)}, **preset}
    if "environment" in preset and not values["private"]:
        # A container with a public address is outside of the network, at an address that isn't known before.
        for name in ("privateEndpoints", "allowedAddresses"):
            if values.get(name):
                yield f"`{name}` needs `azure.private: true` in the environment's file"
    if values.get("private") and values["endpoint"] == "app-service":
        yield "the environment's file has `azure.private`, which is for container instances, and app-service"
    if values.get("budgetAmount") and not values.get("budgetStart"):
        yield "`budgetStart` is missing: the first day of this month, as YYYY-MM-01"
    if values.get("buildAgent"):
        if not values.get("buildAgentSshKey"):
            yield "`buildAgentSshKey` is missing: the public key of the build agent's administrator"
        if not values.get("natGateway"):
            yield "`buildAgent` needs `natGateway`: without one it reaches no build service"
