"""A person's decision on a release."""

from prefect.input import RunInput
from pydantic import Field


class ReleaseDecision(RunInput):
    """What the form in the Prefect UI asks, and what `ahc approve` and `ahc reject` send."""

    approved: bool = Field(description="Whether this version may go live.")
    by: str = Field(min_length=1, description="Who decides.")
    reason: str = Field(min_length=1, description="Why; recorded on the model version.")
