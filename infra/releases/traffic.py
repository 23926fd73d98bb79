"""What a version did with its requests, as its own metrics tell, and which limits that is beyond."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Final, TypeVar

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic import Field

from infra.config.gates import Canary, Watch
from infra.errors import EndpointUnreachable
from infra.ports import RunningVersion
from infra.releases.scoring_client import on_this_machine
from model.statistics import chance_limit, stability_terms
from model.values import Frozen

K = TypeVar("K", str, float)

READING_SECONDS: Final = 3.0


class Traffic(Frozen):
    """What one version did: since its process started, or between two readings."""

    digest: str = Field(default="", description="Of the version that told it.")
    answers: dict[str, int] = Field(default_factory=dict, description="Requests to /score and /score/batch, by status.")
    seconds: dict[float, int] = Field(
        default_factory=dict, description="Requests to /score that took at most so long; the largest key is infinity."
    )
    labels: dict[str, int] = Field(default_factory=dict, description="Scored images by their most probable label.")
    restarts: int = Field(default=0, description="How often its process started anew.")

    @property
    def requests(self) -> int:
        return sum(self.answers.values())

    @property
    def errors(self) -> int:
        """Answers with a status of 5xx; a restart counts as one: what the process was working on got no answer."""
        return sum(count for status, count in self.answers.items() if status.startswith("5")) + self.restarts

    @property
    def error_rate(self) -> float:
        return self.errors / max(self.requests, 1)

    @property
    def images(self) -> int:
        return sum(self.labels.values())

    @property
    def timed(self) -> int:
        """How many requests `seconds` is about."""
        return max(self.seconds.values(), default=0)

    def since(self, before: "Traffic") -> "Traffic":
        """What happened after the reading `before` of the same version."""
        if self.requests < before.requests or self.images < before.images:
            return self.model_copy(update={"restarts": 1})
        return Traffic(
            digest=self.digest,
            answers=_less(self.answers, before.answers),
            seconds=_less(self.seconds, before.seconds),
            labels=_less(self.labels, before.labels),
        )

    def __add__(self, more: "Traffic") -> "Traffic":
        return Traffic(
            digest=more.digest,
            answers=_more(self.answers, more.answers),
            seconds=_more(self.seconds, more.seconds),
            labels=_more(self.labels, more.labels),
            restarts=self.restarts + more.restarts,
        )


class Follower:
    """What one version does from now on, look by look, over restarts of its process.

    Attributes:
        seen: All since the first look that was answered.
        silent: Looks in a row that were not.
    """

    def __init__(self, digest: str) -> None:
        self.seen = Traffic(digest=digest)
        self.silent = 0
        self._last: Traffic | None = None

    def look(self, version: RunningVersion | None) -> None:
        """Read the metrics of this version at its own address; None where it doesn't run now."""
        reading = _reading(version) if version is not None else None
        if reading is None or reading.digest != self.seen.digest:
            self.silent += 1
            return
        self.silent = 0
        if self._last is not None:
            self.seen += reading.since(self._last)
        self._last = reading


def read_traffic(version: RunningVersion) -> Traffic:
    """What this version did since its process started.

    Raises:
        EndpointUnreachable: Nothing there tells its metrics.
    """
    url = version.url
    try:
        answer = httpx.get(
            f"{url}/metrics",
            headers={"Cookie": version.cookie} if version.cookie else {},
            timeout=READING_SECONDS,
            trust_env=not on_this_machine(url),
        )
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise EndpointUnreachable(f"{url} doesn't tell its metrics: {error or type(error).__name__}.") from error
    return parsed(answer.text)


def parsed(exposition: str) -> Traffic:
    """The same from Prometheus' text format."""
    digest = ""
    answers: dict[str, int] = {}
    seconds: dict[float, int] = {}
    labels: dict[str, int] = {}
    for sample in (sample for family in text_string_to_metric_families(exposition) for sample in family.samples):
        match sample.name, sample.labels:
            case "ahc_requests_total", {"path": "/score" | "/score/batch", "status": status}:
                answers[status] = answers.get(status, 0) + int(sample.value)
            case "ahc_request_seconds_bucket", {"path": "/score", "le": bound}:
                seconds[float(bound)] = int(sample.value)
            case "ahc_predictions_total", {"label": label}:
                labels[label] = int(sample.value)
            case "ahc_model_info", {"digest": digest}:
                pass
    return Traffic(digest=digest, answers=answers, seconds=seconds, labels=labels)


def latency_ms(traffic: Traffic, quantile: float = 0.95) -> float | None:
    """This quantile of the time that one image took, interpolated as Prometheus' histogram_quantile; None without any.

    Beyond the largest bound of the histogram, that bound.
    """
    buckets = sorted(traffic.seconds.items())
    rank = quantile * traffic.timed
    if not rank:
        return None
    for (low, below), (high, upto) in pairwise([(0.0, 0), *buckets]):
        if upto >= rank:
            inside = 1.0 if math.isinf(high) else (rank - below) / (upto - below)
            return 1000 * (low if math.isinf(high) else low + inside * (high - low))
    return None


def drift(labels: Mapping[str, int], others: Mapping[str, int]) -> tuple[float, float]:
    """The population stability index of two label counts, and what it exceeds by chance once in a thousand times."""
    names = sorted({*labels, *others})
    if not names:
        return 0.0, 0.0
    p, q = ([counts.get(name, 0) for name in names] for counts in (labels, others))
    chance = chance_limit(len(names), sum(p), sum(q), percentile=0.999)
    return float(stability_terms(p, q).sum()), chance


def exceeded(
    limits: Canary | Watch, seen: Traffic, *, latency_limit_ms: float, other: Traffic | None = None
) -> list[str]:
    """The limits that a version is beyond, in words with figures.

    Errors count as soon as they are too many for `min_requests`; latency and drift once there are so many requests.

    Args:
        limits: Of the environment.
        seen: What the version did.
        latency_limit_ms: Holds where `limits` has none of its own.
        other: What the version did that it is compared with.
    """
    enough = max(limits.min_requests, 1)
    reasons = []
    if seen.errors > limits.max_error_rate * max(seen.requests, enough):
        restarted = f", {seen.restarts} of them a process that ended" if seen.restarts else ""
        reasons.append(
            f"errors: {seen.errors} in {seen.requests} requests{restarted}; the limit is {limits.max_error_rate:.1%}"
        )
    limit_ms = limits.latency_p95_ms or latency_limit_ms
    p95 = latency_ms(seen)
    if seen.timed >= enough and p95 is not None and p95 > limit_ms:
        reasons.append(f"latency: {p95:.0f} ms at the 95th percentile; the limit is {limit_ms:.0f} ms")
    if other is not None and limits.max_drift is not None and min(seen.images, other.images) >= enough:
        index, by_chance = drift(seen.labels, other.labels)
        if index > max(limits.max_drift, by_chance):
            reasons.append(
                f"drift: its labels differ from the other version's by {index:.2f}; the limit is {limits.max_drift:g}"
            )
    return reasons


def _reading(version: RunningVersion) -> Traffic | None:
    try:
        return read_traffic(version)
    except EndpointUnreachable:
        return None


def _less(counts: Mapping[K, int], before: Mapping[K, int]) -> dict[K, int]:
    return {key: count - before.get(key, 0) for key, count in counts.items()}


def _more(counts: Mapping[K, int], others: Mapping[K, int]) -> dict[K, int]:
    return {key: counts.get(key, 0) + others.get(key, 0) for key in {**counts, **others}}
