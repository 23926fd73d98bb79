"""Cache keys: data, configuration, code and packages that a result depends on."""

import ast
import hashlib
import json
from collections import deque
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel

from infra.settings import PROJECT

# --- what a result depends on -------------------------------------------------------------------------------------


def key_of(stage_name: str, *parts: Any, code: Iterable[str], packages: Iterable[str] = ()) -> str:
    """A key over values, the source code of modules with all of `model` that they import, and package versions.

    Args:
        stage_name: Leads the key, so that a person finds it in the result storage.
        parts: Values that JSON or Pydantic can write.
        code: Module names such as `model.training.fit`.
        packages: Distribution names such as `torch`.
    """
    depends_on = {
        "parts": [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts],
        "code": {name: digest for module in code for name, digest in sorted(_sources(module).items())},
        "packages": package_versions(*packages),
    }
    return f"{stage_name}-{_digest(depends_on)}"


def config_hash(config: BaseModel) -> str:
    """24 hex digits over a configuration."""
    return _digest(config.model_dump(mode="json"))


def package_versions(*packages: str) -> dict[str, str]:
    """The installed versions by distribution name."""
    return {name: _version(name) for name in packages}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _sources(module: str) -> dict[str, str]:
    """Digest of a module's source and of every module of the same package that it imports, directly or not."""
    digests: dict[str, str] = {}
    queue = deque([module])
    while queue:
        name = queue.popleft()
        path = PROJECT.joinpath(*name.split(".")).with_suffix(".py")
        if name in digests or not path.is_file():
            continue
        source = path.read_bytes()
        # A template of the same name is as much a part of the module as its lines.
        beside = b"".join(other.read_bytes() for other in sorted(path.parent.glob(f"{path.stem}.*")))
        digests[name] = hashlib.sha256(beside).hexdigest()
        queue.extend(_imports(source, module.split(".")[0]))
    return digests


def _imports(source: bytes, package: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
