"""The traffic of a version while it is followed: its limits, and its figures for people."""

from collections.abc import Mapping
from time import monotonic
from typing import Any, Final

from infra.config.gates import Canary, Watch
from infra.errors import EndpointUnreachable
from infra.ports import Endpoint, RunningVersion
from infra.releases.traffic import Follower, Traffic, exceeded, latency_ms
from tasks.framework.artifacts import table

LOOK_SECONDS: Final = 1.0
ADDRESS_SECONDS: Final = 5.0
SILENT_LOOKS: Final = 3


class Addresses:
    """The versions that an endpoint runs, by role: asked for now and then, as a cloud takes a moment to tell."""

    def __init__(self, target: Endpoint) -> None:
        self._target = target
        self._asked = -ADDRESS_SECONDS
        self._versions: dict[str, RunningVersion] = {}

    def now(self, *, again: bool = False) -> Mapping[str, RunningVersion]:
        """At most some seconds old; asked for `again` where one of them is silent: it may have moved.

        Raises:
            EndpointUnreachable: The endpoint as a whole was stopped, which is no version's fault.
        """
        if again or monotonic() - self._asked >= ADDRESS_SECONDS:
            self._versions = {version.role: version for version in self._target.versions()}
            self._asked = monotonic()
            if not self._versions and self._target.status().state == "stopped":
                raise EndpointUnreachable(f"The endpoint of {self._target.environment} was stopped.")
        return self._versions


def exceeded_limits(
    limits: Canary | Watch, follower: Follower, *, latency_limit_ms: float, other: Traffic | None = None
) -> list[str]:
    """Sentences on the limits that a followed version exceeds; silence is one of them."""
    problems = exceeded(limits, follower.seen, latency_limit_ms=latency_limit_ms, other=other)
    if follower.silent >= SILENT_LOOKS:
        problems.append(f"no answer: it didn't tell its metrics {follower.silent} times in a row")
    return problems


def one_line(traffic: Traffic) -> str:
    return f"{traffic.requests} requests, {traffic.errors} errors"


def figures(traffic: Traffic) -> dict[str, Any]:
    """The figures of one version as JSON values."""
    p95 = latency_ms(traffic)
    return {
        "requests": traffic.requests,
        "errors": traffic.errors,
        "latency_p95_ms": None if p95 is None else round(p95, 1),
        "restarts": traffic.restarts,
        "labels": {label: count for label, count in traffic.labels.items() if count},
    }


def comparison(versions: Mapping[str, Traffic]) -> str:
    """A Markdown table of these versions, by title: requests, errors, latency, restarts, shares of the labels."""
    facts = [figures(traffic) for traffic in versions.values()]
    rows: list[tuple[object, ...]] = [
        ("requests", *(item["requests"] for item in facts)),
        ("errors", *(item["errors"] for item in facts)),
        ("latency, 95th percentile", *(_milliseconds(item["latency_p95_ms"]) for item in facts)),
        ("restarts", *(item["restarts"] for item in facts)),
    ]
    labels = sorted({label for traffic in versions.values() for label in traffic.labels})
    shares: list[tuple[object, ...]] = [
        (label, *(_share(traffic.labels.get(label, 0), traffic.images) for traffic in versions.values()))
        for label in labels
    ]
    return f"{table(('', *versions), rows)}\n\n{table(('label', *versions), shares)}"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} ms"


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%} ({count})" if total else ""
