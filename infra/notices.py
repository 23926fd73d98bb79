"""Notices that a model was registered, put into a queue by others; what a killed reader had taken comes back."""

from collections.abc import Sequence
from typing import Protocol

from pydantic import Field

from infra.ports import Frozen


class Notice(Frozen):
    """One message; a hint to look, since the registry is the truth."""

    id: str
    receipt: str = Field(description="What shows that this reader has it now.")
    text: str = Field(description="As it lies in the queue.")
    taken: int = Field(ge=1, description="How often it was taken, with this time.")
    name: str | None = Field(default=None, description="Of the model; None where the message can't be read.")
    version: int | None = None


class Notices(Protocol):
    """The queue. What is taken and not ended comes back after some minutes."""

    def take(self) -> Sequence[Notice]:
        """Those that nobody else has, at most 32, oldest first."""
        ...

    def end(self, notice: Notice) -> None:
        """It did its work. One that is gone, or that another reader has by now, is fine."""
        ...

    def put_aside(self, notice: Notice) -> None:
        """Keep it where a person finds it, and let nobody take it again."""
        ...
