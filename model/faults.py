"""A fault as a record: how one error crosses processes, runs and machines, and stays itself."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from model.errors import KnownError, ModelError
from model.values import Frozen


class Fault(Frozen):
    """What ended a piece of work. Readers show it; nobody takes sentences apart to find it."""

    name: str = Field(description="The error's class, as in the table of exit codes.")
    message: str = Field(description="What happened and where.")
    next_step: str = Field("", description="What to do now.")
    exit_code: int = 1
    cause: str = Field("", description="The foreign error behind it, where there is one: class and message.")
    evidence: tuple[str, ...] = Field((), description="The last log lines before it, oldest first.")
    details: dict[str, Any] = Field({}, description="What else the error holds, as JSON values.")

    @classmethod
    def of(cls, error: BaseException, evidence: tuple[str, ...] = ()) -> "Fault":
        """The record of an error, known or not."""
        cause = f"{type(error.__cause__).__name__}: {error.__cause__}" if error.__cause__ else ""
        if not isinstance(error, KnownError):
            return cls(name=type(error).__name__, message=str(error), cause=cause, evidence=evidence)
        return cls(
            name=type(error).__name__,
            message=str(error),
            next_step=error.next_step,
            exit_code=error.exit_code,
            cause=cause,
            evidence=evidence,
            details={key: value for key, value in vars(error).items() if key != "next_step"},
        )

    def error(self) -> KnownError:
        """The error again, of its own class where that is known here; else a `ModelError` that names it."""
        kind = known_errors().get(self.name)
        if kind is None:
            return ModelError(f"{self.name}: {self.message}", next_step=self.next_step or None)
        error = kind.__new__(kind)
        # Not `__init__`: some take more than a message, and what they made of it is in the details.
        Exception.__init__(error, self.message)
        error.__dict__.update(self.details)
        if self.next_step:
            error.next_step = self.next_step
        return error


def known_errors() -> Mapping[str, type[KnownError]]:
    """Class name to class of every error that this process has loaded, without the roots of the trees."""
    return {kind.__name__: kind for root in KnownError.__subclasses__() for kind in _below(root)}


def _below(root: type[KnownError]) -> Iterator[type[KnownError]]:
    for child in root.__subclasses__():
        yield child
        yield from _below(child)
