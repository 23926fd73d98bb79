"""The base of all values that modules exchange."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A small value that may cross a task boundary."""

    model_config = ConfigDict(frozen=True, extra="forbid")
