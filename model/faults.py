"""A fault as a record: how one error crosses processes, runs and machines, and stays itself."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, Field

from model.errors import KnownError
from model.values import Frozen


class Fault(Frozen):
    """What ended a piece of work. Readers show it; nobody takes sentences apart to find it.

    `Fault.of` makes it of an error, Pydantic writes it as JSON and reads it again, `error` makes the error of it.
    """

    # Who reads it may be of an older version than who wrote it.
    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(description="The error's class, as in the table of exit codes.")
    message: str = Field(description="What happened and where.")
    next_step: str = Field("", description="What to do now.")
    exit_code: int = 1
    cause: str = Field("", description="The foreign error behind it, where there is one: class and message.")
    where: str = Field("", description="The stage or flow that it ended, in a run.")
    evidence: tuple[str, ...] = Field((), description="The last log lines before it, oldest first.")
    details: dict[str, Any] = Field({}, description="What else the error holds, as JSON values.")

    @classmethod
    def of(cls, error: BaseException, *, where: str = "", evidence: tuple[str, ...] = ()) -> "Fault":
        """The record of an error, known or not."""
        fault = cls(
            name=type(error).__name__,
            message=str(error),
            cause=f"{type(error.__cause__).__name__}: {error.__cause__}" if error.__cause__ else "",
            where=where,
            evidence=evidence,
        )
        if not isinstance(error, KnownError):
            return fault
        # Python keeps an error's notes there too.
        details = {key: value for key, value in vars(error).items() if key != "next_step" and not key.startswith("_")}
        return fault.model_copy(update={"next_step": error.next_step, "exit_code": error.exit_code, "details": details})

    @classmethod
    def of_exit_code(cls, code: int, message: str, next_step: str = "") -> "Fault | None":
        """The record of a process that left its exit code and some words; None where no known error has this code."""
        for name, kind in known_errors().items():
            # The others hold more than can be said of them here.
            if kind.exit_code == code and kind.__init__ is KnownError.__init__:
                return cls(name=name, message=message, next_step=next_step or kind.next_step, exit_code=code)
        return None

    @property
    def kind(self) -> type[KnownError] | None:
        """The error's class; None where this process has none of this name, as of a bug."""
        return _classes().get(self.name)

    @property
    def title(self) -> str:
        """Class and message, for a log line."""
        return f"{self.name}: {self.message}"

    @property
    def log_fields(self) -> dict[str, Any]:
        """What a JSON log line holds beside the message; who waits for a container reads it in the container's log."""
        return {"error": self.name, "next_step": self.next_step, "exit_code": self.exit_code}

    def error(self) -> Exception:
        """The error again, of its own class where that is known here; else a `RuntimeError` that names it."""
        kind = self.kind
        if kind is None:
            return RuntimeError(self.title)
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


def _classes() -> Mapping[str, type[KnownError]]:
    return {KnownError.__name__: KnownError} | {kind.__name__: kind for kind in _below(KnownError)}


def _below(root: type[KnownError]) -> Iterator[type[KnownError]]:
    for child in root.__subclasses__():
        yield child
        yield from _below(child)
