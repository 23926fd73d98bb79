"""The gates of an environment, as its file declares them: tests, approval, freeze windows, limits of real traffic."""

from datetime import datetime
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from model.values import Frozen

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: tuple[Weekday, ...] = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"no time zone is called `{name}`; names are like Europe/Amsterdam") from error
    return name


class FreezeWindow(Frozen):
    """A time in which nothing is released here: once, from `start` to `end`, or weekly on `days`."""

    reason: str = Field(min_length=1, description="Why; shown to whoever starts a release then.")
    start: AwareDatetime | None = Field(default=None, description="Of a window that comes once, with its UTC offset.")
    end: AwareDatetime | None = Field(default=None, description="Likewise.")
    days: tuple[Weekday, ...] = Field(default=(), description="Of a window that comes every week.")
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="In which a weekly window's days begin and end."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        once = self.start is not None and self.end is not None and self.start < self.end
        if once == bool(self.days) or (self.start is None) != (self.end is None):
            raise ValueError("a window has either `start` before `end`, or `days`")
        return self

    def holds(self, now: datetime) -> bool:
        """Whether this aware time lies in the window."""
        if self.start is not None and self.end is not None:
            return self.start <= now < self.end
        return WEEKDAYS[now.astimezone(ZoneInfo(self.time_zone)).weekday()] in self.days


class Shadow(Frozen):
    """Real images of the environment are scored by the candidate too, and the answers are compared."""

    images: int = Field(default=50, ge=1, le=1000, description="So many of the newest sampled images are replayed.")
    min_agreement: float = Field(
        default=0.9, ge=0, le=1, description="Share of the images on which both must name the same label."
    )


class Limits(Frozen):
    """The limits of a version while it takes real traffic."""

    max_error_rate: float = Field(default=0.01, ge=0, le=1, description="Share of its answers that may be 5xx.")
    latency_p95_ms: float | None = Field(
        default=None, gt=0, description="Of its answers, 95th percentile; `gates.latency_p95_ms` if missing."
    )
    max_drift: float | None = Field(
        default=0.25, gt=0, description="How far its labels may differ from the other version's (PSI); null for any."
    )


class Canary(Limits):
    """The candidate takes a share of the real traffic before it takes all of it."""

    share: float = Field(default=0.1, gt=0, le=0.5, description="Share of new connections that it gets.")
    seconds: float = Field(default=60, gt=0, description="For so long.")
    min_requests: int = Field(default=20, ge=0, description="Fewer requests to it decide nothing: it is aborted.")


class Watch(Limits):
    """After the switch the new version is watched; beyond a limit the previous one comes back by itself."""

    seconds: float = Field(default=300, gt=0, description="For so long.")
    min_requests: int = Field(default=20, ge=1, description="Fewer requests decide nothing: the version stays.")


class Gates(Frozen):
    """The gates that a version passes before it goes live in this environment, and after."""

    automatic: bool = Field(
        default=True, description="Whether a version that is due is released here by itself, to its approval at most."
    )
    approval: bool = Field(default=False, description="Whether a person must approve before the release goes on.")
    approval_hours: float = Field(
        default=72, gt=0, description="After so many hours without a decision, it is rejected."
    )
    approvers: tuple[str, ...] = Field(default=(), description="Who may decide; anyone where none is named.")
    four_eyes: bool = Field(default=False, description="Whether who started a release may not approve it.")
    latency_p95_ms: float = Field(default=500, gt=0, description="Limit for a single image over HTTP, 95th percentile.")
    requires: str | None = Field(default=None, description="Environment in which the same digest must be live first.")
    soak_minutes: float = Field(default=0, ge=0, description="It must have been live there for so long.")
    freeze: tuple[FreezeWindow, ...] = Field(default=(), description="When nothing is released here.")
    shadow: Shadow | None = Field(default=None, description="Replay real images to the candidate first.")
    canary: Canary | None = Field(default=None, description="Give the candidate a share of the traffic first.")
    watch: Watch | None = Field(default=None, description="Watch it after the switch, and roll back by itself.")
