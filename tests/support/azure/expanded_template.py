"""The resources that a composed template makes, by the bench's template language: no deployment, no server."""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from infra.azure.provisioning.templates import Composed
from infra.azure.provisioning.what_if import Plan, read_changes
from tests.support.azure import bench

NOT_IN_BODY = {"condition", "copy", "dependsOn"}
ANY_UNIQUE = "*"
"""Stands for the part of a name that Azure makes unique."""


class Expanded(NamedTuple):
    """One resource; ids in it begin with their provider."""

    type: str
    name: str
    module: str
    """Name of the nested deployment that makes it."""
    body: dict[str, Any]


def expand(composed: Composed) -> list[Expanded]:
    """Every resource whose condition isn't known to be false, nested deployments followed; skips without the bench."""
    if reason := bench.missing():
        pytest.skip(reason)
    sys.path.insert(0, str(bench.BENCH))
    from azure_bench import armtemplate

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(armtemplate._PLAIN_FUNCTIONS, "uniquestring", lambda *_: ANY_UNIQUE)
        resources = list(_resources(armtemplate, composed.template, composed.parameters, ""))
    text = json.dumps([item._asdict() for item in resources])
    text = re.sub(r"/subscriptions/[^/\"]+/(resourceGroups/[^/\"]+/)?providers/(?=Microsoft\.)", "", text)
    return [Expanded(**item) for item in json.loads(text)]


def _resources(armtemplate: Any, template: Any, given: Any, module: str) -> Iterator[Expanded]:
    scope = armtemplate.Scope(bench.SUBSCRIPTION, "rg-ahc")
    context = armtemplate.Context(template, given, scope, module, armtemplate.Environment())
    for item in armtemplate.expand(context)[0]:
        body = {key: value for key, value in item.raw.items() if key not in NOT_IN_BODY}
        if item.is_deployment:
            parameters = armtemplate.evaluate(body["properties"]["parameters"], context)
            yield from _resources(armtemplate, body["properties"]["template"], parameters, str(item.name))
        else:
            body = item.in_loop(lambda body=body: armtemplate.evaluate(body, context))
            yield Expanded(item.type, str(item.name), module, armtemplate.without_nulls(armtemplate.plain(body)))


def foreseen(name: str, composed: Composed) -> Plan:
    """The plan of a deployment into an empty subscription."""
    from azure.mgmt.resource.resources.models import WhatIfChange

    changes = [
        WhatIfChange(resource_id=resource_id(item), change_type="Create", after=item.body) for item in expand(composed)
    ]
    return Plan(name=name, resource_group=f"rg-ahc-{name}", location=composed.location, changes=read_changes(changes))


def resource_id(item: Expanded) -> str:
    namespace, *kinds = item.type.split("/")
    names = item.name.split("/")
    path = "/".join(part for pair in zip(kinds, names, strict=True) for part in pair)
    return f"/subscriptions/{bench.SUBSCRIPTION}/resourceGroups/rg-ahc/providers/{namespace}/{path}"
