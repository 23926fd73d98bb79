"""ARM template expressions, as far as they are known before a deployment.

Microsoft, "Template functions in ARM templates". What only Azure can answer (`reference`, `subscription`, ...) stays as
`Unresolved`, and so does what depends on it.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

TOKEN: Final = re.compile(r"\s*(?:'((?:[^']|'')*)'|(-?\d+)|([A-Za-z_]\w*)|([().,\[\]]))")
ANY_UNIQUE: Final = "*"
"""Stands for the part of a name that Azure makes unique."""


@dataclass(frozen=True)
class Unresolved:
    """A value that only a running deployment knows; prints as its expression."""

    text: str

    def __str__(self) -> str:
        return f"[{self.text}]"


@dataclass(frozen=True)
class Call:
    function: str
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.function}({', '.join(_text(item) for item in self.arguments)})"


@dataclass(frozen=True)
class Index:
    value: Any
    key: Any

    def __str__(self) -> str:
        return f"{_text(self.value)}[{_text(self.key)}]"


@dataclass
class Scope:
    """Where expressions of one template are evaluated."""

    parameters: Mapping[str, Any]
    variables: Mapping[str, Any]
    indices: dict[str, int] = field(default_factory=dict)
    """Of the copy loops around the expression, by name; the innermost one has the empty name, too."""

    def evaluate(self, value: Any) -> Any:
        """A JSON value with its expressions and property loops evaluated."""
        if isinstance(value, str):
            if value.startswith("[["):
                return value[1:]
            return self._run(parse(value[1:-1])) if value.startswith("[") and value.endswith("]") else value
        if isinstance(value, list):
            return [self.evaluate(item) for item in value]
        if isinstance(value, dict):
            return self._object(value)
        return value

    def inside(self, loop: str, index: int) -> "Scope":
        return Scope(self.parameters, self.variables, {**self.indices, loop.lower(): index, "": index})

    def _object(self, value: dict[str, Any]) -> dict[str, Any]:
        done: dict[str, Any] = {}
        for key, item in value.items():
            if key == "copy" and isinstance(item, list):
                done |= {loop["name"]: self._loop(loop) for loop in item}
            else:
                done[str(self.evaluate(key))] = self.evaluate(item)
        return done

    def _loop(self, loop: dict[str, Any]) -> Any:
        count = self.evaluate(loop["count"])
        if isinstance(count, Unresolved):
            return count
        return [self.inside(loop["name"], index).evaluate(loop["input"]) for index in range(count)]

    def _run(self, node: Any) -> Any:
        if isinstance(node, Index):
            value, key = self._run(node.value), self._run(node.key)
            found = isinstance(value, dict | list) and not isinstance(key, Unresolved)
            return value[key] if found else Unresolved(str(node))
        if not isinstance(node, Call):
            return node
        if node.function == "if":
            condition = self._run(node.arguments[0])
            if isinstance(condition, Unresolved):
                return Unresolved(str(node))
            return self._run(node.arguments[1 if condition else 2])
        arguments = [self._run(item) for item in node.arguments]
        own = {"parameters": self._parameter, "variables": self._variable, "copyindex": self._copy_index}
        if function := own.get(node.function, SCOPED.get(node.function)):
            return function(*arguments)
        known = FUNCTIONS.get(node.function)
        if known is None or any(isinstance(item, Unresolved) for item in arguments):
            return Unresolved(str(node))
        return known(*arguments)

    def _parameter(self, name: str) -> Any:
        return self.parameters[name]

    def _variable(self, name: str) -> Any:
        return self.evaluate(self.variables[name])

    def _copy_index(self, *arguments: Any) -> int:
        names = [item for item in arguments if isinstance(item, str)]
        offsets = [item for item in arguments if isinstance(item, int)]
        return self.indices[names[0].lower() if names else ""] + sum(offsets)


@lru_cache(maxsize=4096)
def parse(expression: str) -> Any:
    """The tree of an expression (without its brackets): calls, indices and literals.

    Raises:
        ValueError: It is no expression.
    """
    tokens, position = [], 0
    while expression[position:].strip():
        match = TOKEN.match(expression, position)
        if match is None:
            raise ValueError(f"not an ARM expression: {expression}")
        tokens.append(match)
        position = match.end()
    reader = _Reader(tokens)
    tree = reader.expression()
    if reader.mark() is not None:
        raise ValueError(f"not an ARM expression: {expression}")
    return tree


class _Reader:
    def __init__(self, tokens: list[re.Match[str]]) -> None:
        self._tokens = tokens
        self._position = 0

    def expression(self) -> Any:
        token = self._next()
        node: Any
        if token[1] is not None:
            node = token[1].replace("''", "'")
        elif token[2] is not None:
            node = int(token[2])
        else:
            self._next()
            node = Call(token[3].lower(), tuple(self._arguments()))
        while self.mark() in {".", "["}:
            if self._next()[4] == ".":
                node = Index(node, self._next()[3])
            else:
                node = Index(node, self.expression())
                self._next()
        return node

    def mark(self) -> str | None:
        """The next token where it is a mark; an empty text where it is another, None at the end."""
        return (self._tokens[self._position][4] or "") if self._position < len(self._tokens) else None

    def _arguments(self) -> list[Any]:
        found = []
        while self.mark() != ")":
            found.append(self.expression())
            if self.mark() == ",":
                self._next()
        self._next()
        return found

    def _next(self) -> re.Match[str]:
        if self._position == len(self._tokens):
            raise ValueError("an ARM expression ends too soon")
        self._position += 1
        return self._tokens[self._position - 1]


def _text(node: Any) -> str:
    return f"'{node}'" if isinstance(node, str) else str(node)


def _resource_id(*arguments: Any) -> Any:
    """A resource id from its provider on; the scope before it isn't known."""
    at = next((position for position, item in enumerate(arguments) if isinstance(item, str) and "/" in item), None)
    if at is None or any(isinstance(item, Unresolved) for item in arguments[at:]):
        return Unresolved(str(Call("resourceid", arguments)))
    namespace, *kinds = arguments[at].split("/")
    return "/".join([namespace, *(part for pair in zip(kinds, arguments[at + 1 :], strict=True) for part in pair)])


def _same(one: Any, other: Any) -> bool:
    return bool(one.lower() == other.lower() if isinstance(one, str) and isinstance(other, str) else one == other)


def _concat(*values: Any) -> Any:
    return "".join(values) if isinstance(values[0], str) else [item for value in values for item in value]


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "and": lambda *values: all(values),
    "or": lambda *values: any(values),
    "not": lambda value: not value,
    "equals": _same,
    "greater": lambda one, other: one > other,
    "empty": lambda value: not value,
    "null": lambda: None,
    "length": len,
    "take": lambda value, count: value[:count],
    "format": lambda pattern, *values: pattern.format(*values),
    "replace": lambda value, old, new: value.replace(old, new),
    "startswith": lambda value, start: value.lower().startswith(start.lower()),
    "string": lambda value: value if isinstance(value, str) else json.dumps(value, default=str),
    "concat": _concat,
    "createarray": lambda *values: list(values),
    "createobject": lambda *values: dict(zip(values[::2], values[1::2], strict=True)),
}
SCOPED: Final[dict[str, Callable[..., Any]]] = {
    "uniquestring": lambda *_: ANY_UNIQUE,
    "resourceid": _resource_id,
    "subscriptionresourceid": _resource_id,
}
"""What is known though the subscription isn't."""
