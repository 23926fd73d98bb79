"""Expressions of Azure Pipelines, in templates (`${{ }}`), at run time (`$[ ]`) and in conditions, as documented.

https://learn.microsoft.com/azure/devops/pipelines/process/expressions
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

TOKEN: Final = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d[\w.]*)|(?P<name>[A-Za-z_][\w-]*)|(?P<mark>[][(),.]))"
)


class WrongExpression(Exception):
    """What Azure Pipelines would refuse."""


class Absent(Mapping[str, Any]):
    """A name that nobody set: empty, and so is all that is below it."""

    def __getitem__(self, key: str) -> Any:
        return self

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


ABSENT: Final = Absent()


def evaluate(
    expression: str, names: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]] | None = None
) -> Any:
    """The value of an expression.

    Args:
        expression: Without its brackets.
        names: The contexts that there are here, such as `variables`.
        functions: Those beside the general ones, such as `succeeded`.
    """
    reader = _Reader(expression, names, {**GENERAL, **(functions or {})})
    value = reader.value()
    if not reader.ended:
        raise WrongExpression(f"{expression!r} goes on after its end")
    return value


class _Reader:
    def __init__(self, text: str, names: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> None:
        self._text, self._names, self._functions = text, names, functions
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            found = TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise WrongExpression(f"{text!r} can't be read at {text[at:]!r}")
            self._tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()

    @property
    def ended(self) -> bool:
        return not self._tokens

    def value(self) -> Any:
        kind, word = self._next()
        if kind == "text":
            return word[1:-1].replace("''", "'")
        if kind == "number":
            return word
        if kind != "name":
            raise WrongExpression(f"{self._text!r}: {word!r} is not expected")
        if word.lower() in ("true", "false"):
            return word.lower() == "true"
        if self._is("("):
            return self._call(word)
        if word not in self._names:
            raise WrongExpression(f"{self._text!r}: there is no `{word}` here")
        return self._below(self._names[word])

    def _call(self, word: str) -> Any:
        known = {name.lower(): function for name, function in self._functions.items()}
        if word.lower() not in known:
            raise WrongExpression(f"{self._text!r}: there is no function `{word}` here")
        self._take("(")
        given = []
        while not self._is(")"):
            given.append(self.value())
            if not self._is(")"):
                self._take(",")
        self._take(")")
        return self._below(known[word.lower()](*given))

    def _below(self, value: Any) -> Any:
        while self._is(".") or self._is("["):
            if self._next()[1] == ".":
                key: Any = self._next()[1]
            else:
                key = self.value()
                self._take("]")
            value = _member(value, key)
        return value

    def _is(self, mark: str) -> bool:
        return bool(self._tokens) and self._tokens[0] == ("mark", mark)

    def _take(self, mark: str) -> None:
        if self._next() != ("mark", mark):
            raise WrongExpression(f"{self._text!r} lacks a {mark!r}")

    def _next(self) -> tuple[str, str]:
        if not self._tokens:
            raise WrongExpression(f"{self._text!r} ends too early")
        return self._tokens.pop(0)


def _member(value: Any, key: Any) -> Any:
    if isinstance(value, Mapping):
        return next((item for name, item in value.items() if str(name).lower() == str(key).lower()), ABSENT)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return value[int(key)]
    raise WrongExpression(f"{value!r} has no {key!r}")


def as_text(value: Any) -> str:
    """As it is written into a string."""
    if isinstance(value, bool):
        return str(value)
    return "" if isinstance(value, Absent) or value is None else str(value)


def is_true(value: Any) -> bool:
    """Any text that is not empty is true, `false` too; a boolean is what it is."""
    return value if isinstance(value, bool) else bool(value)


def _equal(left: Any, right: Any) -> bool:
    return as_text(left).lower() == as_text(right).lower()


def _number(value: Any) -> float:
    return float(as_text(value) or 0)


GENERAL: Final[dict[str, Callable[..., Any]]] = {
    "and": lambda *given: all(map(is_true, given)),
    "or": lambda *given: any(map(is_true, given)),
    "not": lambda value: not is_true(value),
    "eq": _equal,
    "ne": lambda left, right: not _equal(left, right),
    "gt": lambda left, right: _number(left) > _number(right),
    "ge": lambda left, right: _number(left) >= _number(right),
    "lt": lambda left, right: _number(left) < _number(right),
    "in": lambda value, *others: any(_equal(value, other) for other in others),
    "startsWith": lambda text, start: as_text(text).lower().startswith(as_text(start).lower()),
    "coalesce": lambda *given: next((value for value in given if as_text(value)), ""),
    "join": lambda separator, items: as_text(separator).join(map(as_text, items)),
    "split": lambda text, separator: as_text(text).split(as_text(separator)),
    "format": lambda text, *given: as_text(text).format(*map(as_text, given)),
}
