"""A pipeline with its templates, as Azure Pipelines expands it before a build starts."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.pipelines.expressions import WrongExpression, as_text, evaluate, is_true

WHOLE: Final = re.compile(r"^\$\{\{(.*?)\}\}$", re.DOTALL)
INSIDE: Final = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
SCRIPTS: Final = ("script", "inlineScript")
BODIES: Final = ("stages", "jobs", "steps", "variables")


class Script(str):  # noqa: SLOT000 - it carries its origins
    """A script, which remembers where it is written: in a file, and in the parameter of a template that it calls."""

    origins: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def of(cls, text: str, origins: frozenset[tuple[str, int]]) -> "Script":
        script = cls(text)
        script.origins = origins
        return script


class _Loader(yaml.BaseLoader):
    """Every value is text, as for Azure Pipelines; scripts know their place; no key is given twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in found:
            raise WrongExpression(f"{key!r} is given twice {key_node.start_mark}")
        value = loader.construct_object(value_node, deep=True)
        if key in SCRIPTS and isinstance(value, str):
            value = Script.of(value, frozenset({(node.start_mark.name, value_node.start_mark.line + 1)}))
        found[key] = value
    return found


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load(path: Path) -> dict[str, Any]:
    """A file as it stands."""
    loader = _Loader(path.read_text(encoding="utf-8"))
    loader.name = str(path)
    content: dict[str, Any] = loader.get_single_data()
    return content


def scripts_of(content: Any) -> Iterator[Script]:
    """All scripts in what was loaded or expanded."""
    if isinstance(content, Mapping):
        for value in content.values():
            yield from scripts_of(value)
    elif isinstance(content, list):
        for value in content:
            yield from scripts_of(value)
    elif isinstance(content, Script):
        yield content


def expand(path: Path, parameters: Mapping[str, Any] | None = None, variables: Mapping[str, str] | None = None) -> Any:
    """The pipeline of a file, without a template or a template expression.

    Args:
        path: Of the pipeline.
        parameters: What whoever starts the build gives.
        variables: Those that Azure Pipelines knows before a build starts, such as Build.Reason.
    """
    content = load(path)
    bound = _bind(content.pop("parameters", []), parameters or {}, path)
    scope = {"parameters": bound, "variables": dict(variables or {})}
    return _File(path).mapping(content, scope)


def _bind(declared: list[dict[str, Any]], given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    names = {item["name"] for item in declared}
    if unknown := set(given) - names:
        raise WrongExpression(f"{path.name} has no parameters {sorted(unknown)}")
    bound = {}
    for item in declared:
        name = item["name"]
        if name not in given and "default" not in item:
            raise WrongExpression(f"{path.name} needs the parameter {name!r}")
        value = given.get(name, item.get("default"))
        if "values" in item and value not in item["values"]:
            raise WrongExpression(f"{path.name}: {name!r} is none of {item['values']}, but {value!r}")
        if item.get("type") == "boolean":
            value = as_text(value).lower() == "true"
        if item.get("type") in ("string", "boolean") and isinstance(value, list | dict):
            raise WrongExpression(f"{path.name}: {name!r} is one value, not {value!r}")
        bound[name] = value
    return bound


class _File:
    """Expands what is written in one file, whose templates are beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mapping(self, content: dict[str, Any], scope: dict[str, Any]) -> dict[str, Any]:
        if "variables" in content:
            own = self._any(content["variables"], scope)
            scope = {**scope, "variables": {**scope["variables"], **_named(own)}}
            content = {key: own if key == "variables" else value for key, value in content.items()}
        found: dict[str, Any] = {}
        for key, value in self._chosen(content.items(), scope):
            word = WHOLE.match(key)
            if word and word[1].strip() == "insert":
                found |= self._any(value, scope)
            elif word and word[1].split()[0] in ("if", "elseif", "else"):
                found |= self.mapping(value, scope)
            else:
                found[as_text(self._text(key, scope))] = self._any(value, scope)
        return found

    def _chosen(self, items: Any, scope: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Without the branches that are not taken."""
        taken = False
        for key, value in items:
            word = WHOLE.match(key)
            kind, _, rest = word[1].strip().partition(" ") if word else ("", "", "")
            if kind == "if":
                taken = is_true(evaluate(rest, scope))
            elif kind == "elseif":
                wanted = not taken and is_true(evaluate(rest, scope))
                taken = taken or wanted
                if not wanted:
                    continue
            elif kind == "else":
                if taken:
                    continue
                taken = True
            if kind == "if" and not taken:
                continue
            yield key, value

    def _list(self, content: list[Any], scope: dict[str, Any]) -> list[Any]:
        found: list[Any] = []
        pairs = [next(iter(item.items())) if _is_branch(item) else ("", item) for item in content]
        for key, value in self._chosen(pairs, scope):
            word = WHOLE.match(key)
            if word is None:
                found += self._item(value, scope)
            elif each := re.match(r"each (\w+) in (.*)", word[1].strip()):
                for one in evaluate(each[2], scope):
                    found += self._list(value, {**scope, each[1]: one})
            else:
                found += self._list(value, scope)
        return found

    def _item(self, item: Any, scope: dict[str, Any]) -> list[Any]:
        if not isinstance(item, dict) or "template" not in item:
            return [self._any(item, scope)]
        path = (self._path.parent / as_text(self._text(item["template"], scope))).resolve()
        content = load(path)
        given = self._any(item.get("parameters", {}), scope)
        inner = {**scope, "parameters": _bind(content.pop("parameters", []), given, path)}
        [(body, rest)] = content.items()
        if body not in BODIES:
            raise WrongExpression(f"{path.name} is no template of {BODIES}")
        expanded: list[Any] = _File(path)._list(rest, inner)
        return expanded

    def _any(self, value: Any, scope: dict[str, Any]) -> Any:
        if isinstance(value, dict):
            return self.mapping(value, scope)
        if isinstance(value, list):
            return self._list(value, scope)
        return self._text(value, scope) if isinstance(value, str) else value

    def _text(self, text: str, scope: dict[str, Any]) -> Any:
        origins = text.origins if isinstance(text, Script) else frozenset()
        whole = WHOLE.match(text)
        if whole and len(INSIDE.findall(text)) == 1:
            value = evaluate(whole[1], scope)
        else:
            value = INSIDE.sub(lambda found: as_text(evaluate(found[1], scope)), text)
        if not origins:
            return value
        inner = value.origins if isinstance(value, Script) else frozenset()
        return Script.of(as_text(value), origins | inner)


def _is_branch(item: Any) -> bool:
    return isinstance(item, dict) and len(item) == 1 and WHOLE.match(next(iter(item))) is not None


def _named(variables: Any) -> dict[str, str]:
    """Variables that have a value before the build starts."""
    if isinstance(variables, dict):
        return variables
    return {item["name"]: item["value"] for item in variables if "name" in item}
