"""The one reader of YAML files that people write: it names every fault at once, with the nearest valid word."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError

from infra.errors import ConfigurationError
from model.values import Frozen


class Described(Frozen):
    """The content of a file that is called like the thing it describes: an environment, a trainer."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,30}$", description="As the file is called.")
    description: str


D = TypeVar("D", bound=Described)
M = TypeVar("M", bound=BaseModel)


def nearest(word: str, valid: list[str]) -> str:
    """A sentence that proposes the nearest valid word, or lists all of them."""
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    return f"did you mean `{close[0]}`?" if close else f"valid: {', '.join(sorted(valid))}."


def load_described(what: str, name: str, folder: Path, kind: type[D]) -> D:
    """Read `folder/name.yaml`.

    Raises:
        ConfigurationError: There is no such file, or it has an unknown key or a wrong value (all are named).
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        names = [item.stem for item in folder.glob("*.yaml")]
        raise ConfigurationError(f"There is no {what} `{name}`: {nearest(name, names)}")
    return read_described(path, kind)


def read_described(path: Path, kind: type[D]) -> D:
    """Read one such file; raises as `load_described` does."""
    described = read_yaml(path, kind)
    if described.name != path.stem:
        raise ConfigurationError(f"{path}: name is `{described.name}` but the file is called `{path.name}`.")
    return described


def read_yaml(path: Path, kind: type[M], **changes: str | None) -> M:
    """Read a file as this model, with those changes that have a value.

    Raises:
        ConfigurationError: It can't be read, or has an unknown key or a wrong value (all are named).
    """
    return validated({**read_mapping(path), **{key: value for key, value in changes.items() if value}}, kind, path)


def read_mapping(path: Path, *, may_be_empty: bool = False) -> dict[str, Any]:
    """The keys and values of a YAML or JSON file.

    Raises:
        ConfigurationError: It can't be read, or holds something else.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"Can't read {path}: {error.strerror or error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid YAML: {error}") from error
    if content is None and may_be_empty:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: expected keys and values, found {type(content).__name__}.")
    return content


def validated(content: dict[str, Any], kind: type[M], source: object) -> M:
    """This content as this model.

    Raises:
        ConfigurationError: Names the source, and every unknown key and wrong value in it.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(f"{source}: " + "; ".join(_explain(item, kind) for item in error.errors())) from error


def _explain(item: Any, kind: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"`{where}`: {item['msg']}"
    owner = _owner([part for part in item["loc"][:-1] if isinstance(part, str)], kind)
    return f"unknown key `{where}`: {nearest(str(item['loc'][-1]), list(owner.model_fields))}"


def _owner(path: list[str], kind: type[BaseModel]) -> type[BaseModel]:
    """The class whose keys are valid below these keys."""
    owner = kind
    for key in path:
        # The key of a mapping is no field of what the mapping holds.
        annotation = owner.model_fields[key].annotation if key in owner.model_fields else None
        models = (part for part in (annotation, *_parts(annotation)) if isinstance(part, type))
        owner = next((part for part in models if issubclass(part, BaseModel)), owner)
    return owner


def _parts(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        yield part
        yield from _parts(part)
