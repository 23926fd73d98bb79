"""`-p key=value` and `--params FILE`: parameters typed by the flow's own JSON schema, all mistakes named at once."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.config.yaml_files import nearest, read_mapping
from infra.errors import ConfigurationError

Schema = Mapping[str, Any]


def parse_parameters(
    pairs: list[str], file: Path | None, schema: Schema, defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read parameters as `schema` types them; a pair wins over the file.

    Keys reach into nested models with dots (`training.epochs=3`). A value is taken as text where the schema wants text,
    otherwise as JSON; a list may also be written with commas (`release_to=test,acceptance`).

    Args:
        pairs: `key=value`, as they stand on the command line.
        file: A YAML or JSON file of nested parameters.
        schema: JSON schema of the flow's parameters, as Prefect keeps it (`parameter_schema`).
        defaults: What a deployment sets already. A nested value is merged into it, since a deployment's own merge stops
            at the top level.

    Returns:
        Only the parameters of the pairs and the file, ready to send.

    Raises:
        ConfigurationError: Names every unknown key (with the nearest valid one), wrong value and missing parameter.
    """
    reader = _Reader(schema)
    parameters = reader.read_file(file) if file else {}
    for pair in pairs:
        reader.read_pair(pair, parameters)
    base = dict(defaults or {})
    merged = {key: _merge(base.get(key), value) for key, value in parameters.items()}
    if not reader.problems:
        reader.check({**base, **merged})
    if reader.problems:
        raise ConfigurationError("Wrong parameters: " + "; ".join(reader.problems) + ".")
    return merged


class _Reader:
    """Walks one schema and collects what is wrong instead of stopping at the first."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.definitions: Schema = schema.get("definitions") or schema.get("$defs") or {}
        self.problems: list[str] = []

    def read_file(self, file: Path) -> dict[str, Any]:
        content = read_mapping(file, may_be_empty=True)
        for path in _paths(content):
            self._find(path, f"{file}: ")
        return content

    def read_pair(self, pair: str, into: dict[str, Any]) -> None:
        key, separator, text = pair.partition("=")
        if not separator or not key.strip():
            self.problems.append(f"`{pair}` is not of the form key=value")
            return
        path = key.strip().split(".")
        schema = self._find(path, "")
        if schema is None:
            return
        for part in path[:-1]:
            branch = into.get(part)
            into[part] = dict(branch) if isinstance(branch, dict) else {}
            into = into[part]
        into[path[-1]] = self._value(text, schema)

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Types, limits and missing keys, by the JSON schema itself."""
        from prefect.utilities.schema_tools.validation import validate

        errors = validate(dict(parameters), dict(self.schema), preprocess=False)
        for error in sorted(errors, key=lambda item: item.json_path):
            where = ".".join(str(part) for part in error.absolute_path)
            if error.validator == "required":
                name = str(error.message).split("'")[1]
                missing = f"{where}.{name}" if where else name
                self.problems.append(f"`{missing}` is missing: give it with -p {missing}=...")
            else:
                reason = _plain(str(error.message))
                self.problems.append(f"`{where}`: {reason}" if where else reason)

    def _find(self, path: list[str], source: str) -> Schema | None:
        """The schema of a dotted key; None and a problem where there is no such key."""
        current: Schema = self.schema
        for depth, part in enumerate(path):
            child = self._child(current, part)
            if child is None:
                self.problems.append(f"{source}there is no parameter `{'.'.join(path)}`; {self._nearest(path, depth)}")
                return None
            current = child
        return current

    def _child(self, schema: Schema, key: str) -> Schema | None:
        options = list(self._options(schema))
        for option in options:
            properties = option.get("properties", {})
            if key in properties:
                return dict(properties[key])
        for option in options:
            more = option.get("additionalProperties")
            if isinstance(more, dict):
                return more
            if more is True or ("properties" not in option and option.get("type", "object") == "object"):
                return {}
        return None

    def _options(self, schema: Schema) -> Iterator[Schema]:
        """The alternatives of a schema, references followed."""
        reference = schema.get("$ref")
        if reference is not None:
            yield from self._options(self.definitions.get(str(reference).rsplit("/", 1)[-1], {}))
            return
        alternatives = [*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])]
        if not alternatives:
            yield schema
        for alternative in alternatives:
            yield from self._options(alternative)

    def _nearest(self, path: list[str], depth: int) -> str:
        keys = list(self._keys(self.schema, ()))
        same_end = [key for key in keys if key.rsplit(".", 1)[-1] == path[-1]]
        if same_end:
            return nearest(".".join(path), same_end) if len(same_end) > 1 else f"did you mean `{same_end[0]}`?"
        prefix = ".".join(path[:depth])
        siblings = [key for key in keys if key.rpartition(".")[0] == prefix] or keys
        return nearest(".".join(path[: depth + 1]), siblings)

    def _keys(self, schema: Schema, above: tuple[str, ...]) -> Iterator[str]:
        if len(above) > 6:  # a model that contains itself
            return
        for option in self._options(schema):
            for key, child in option.get("properties", {}).items():
                yield ".".join((*above, key))
                yield from self._keys(child, (*above, key))

    def _value(self, text: str, schema: Schema) -> Any:
        options = list(self._options(schema))
        types = {kind for option in options for kind in _types(option)}
        if text.lower() in {"null", "none"} and "null" in types:
            return None
        if types - {"null"} == {"string"}:
            return text
        try:
            value = json.loads(text)
        except ValueError:
            value = {"true": True, "false": False}.get(text.lower(), text)
        if "array" in types and not isinstance(value, list | dict):
            items: Schema = next((option.get("items", {}) for option in options if "array" in _types(option)), {})
            return [self._value(part.strip(), items or {}) for part in text.split(",") if part.strip()]
        return value


def _types(schema: Schema) -> set[str]:
    kind = schema.get("type")
    if kind is None:
        return {"string"} if all(isinstance(word, str) for word in schema.get("enum", [None])) else set()
    return set(kind) if isinstance(kind, list) else {str(kind)}


def _paths(content: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """The dotted keys of nested mappings, outermost first; a wrong branch is named once, not per leaf."""
    for key, value in content.items():
        path = (*above, str(key))
        if isinstance(value, dict) and value:
            yield from _paths(value, path)
        else:
            yield list(path)


def _merge(below: Any, above: Any) -> Any:
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{key: _merge(below.get(key), value) for key, value in above.items()}}


def _plain(message: str) -> str:
    """JSON Schema's wording in everyday words."""
    for technical, plain in (
        ("is not of type", "is not a value of type"),
        ("is not valid under any of the given schemas", "is none of the allowed kinds of value"),
        ("Additional properties are not allowed", "unknown keys"),
    ):
        message = message.replace(technical, plain)
    return message
