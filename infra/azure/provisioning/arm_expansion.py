"""The resources that a composed template makes, told before anything is deployed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from infra.azure.provisioning.arm_expressions import Scope, Unresolved
from infra.azure.provisioning.templates import DEPLOYMENT, Composed

NOT_IN_BODY: Final = frozenset({"condition", "copy", "dependsOn"})


@dataclass(frozen=True)
class Planned:
    """One resource; in names, `*` stands for what Azure makes unique."""

    type: str
    name: str
    module: str
    """Name of the nested deployment that makes it; empty for the main template."""
    body: dict[str, Any]
    """All but condition, loop and dependencies, evaluated as far as it is known; the rest as its expression."""


def planned(composed: Composed) -> list[Planned]:
    """Every resource whose condition isn't known to be false, nested deployments followed."""
    return list(_resources(composed.template, composed.parameters, ""))


def _resources(template: Mapping[str, Any], given: Mapping[str, Any], module: str) -> Iterator[Planned]:
    scope = Scope(_parameters(template, given), template.get("variables", {}))
    for resource in template["resources"]:
        if scope.evaluate(resource.get("condition", True)) is False:
            continue
        for each in _repeated(resource, scope):
            if resource["type"] == DEPLOYMENT:
                properties = resource["properties"]
                parameters = each.evaluate(properties["parameters"])
                yield from _resources(properties["template"], parameters, str(each.evaluate(resource["name"])))
            else:
                body = _printed(each.evaluate({k: v for k, v in resource.items() if k not in NOT_IN_BODY}))
                yield Planned(resource["type"], body["name"], module, body)


def _parameters(template: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    defaults = Scope({}, {})
    return {
        name: given[name]["value"] if name in given else defaults.evaluate(declared.get("defaultValue"))
        for name, declared in template["parameters"].items()
    }


def _repeated(resource: Mapping[str, Any], scope: Scope) -> list[Scope]:
    loop = resource.get("copy")
    if loop is None:
        return [scope]
    return [scope.inside(loop["name"], index) for index in range(scope.evaluate(loop["count"]))]


def _printed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _printed(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_printed(item) for item in value]
    return str(value) if isinstance(value, Unresolved) else value
