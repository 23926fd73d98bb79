"""Figures of a version from its own metrics, and the limits that they are beyond."""

import contextlib
import random
from collections.abc import Iterator

import pytest
from prometheus_client import start_http_server

from infra.config.gates import Canary, Watch
from infra.ports import LiveModel, RunningVersion
from infra.releases.traffic import Follower, Traffic, drift, exceeded, latency_ms, parsed
from model.serving.http.schemas import ServedModel
from model.serving.observe.metrics import Metrics

LABELS = ("blue", "green", "red")
DIGEST = "d" * 64


class Version:
    """The metrics of a scoring process, filled as it fills them."""

    def __init__(self, digest: str = DIGEST) -> None:
        self.metrics = Metrics(ServedModel(name="colours", version=1, digest=digest), LABELS)

    def scored(self, count: int, *, label: str = "red", seconds: float = 0.01) -> "Version":
        for _ in range(count):
            self.metrics.request("/score", "POST", 200, seconds)
            self.metrics.scored(label, 0.9)
        return self

    def failed(self, count: int) -> "Version":
        for _ in range(count):
            self.metrics.request("/score", "POST", 503, 0.01)
        return self

    def read(self) -> Traffic:
        return parsed(self.metrics.exposition().decode())

    @contextlib.contextmanager
    def served(self) -> Iterator[RunningVersion]:
        server, thread = start_http_server(0, "127.0.0.1", registry=self.metrics.registry)
        model = LiveModel(name="colours", version=1, digest=DIGEST)
        yield RunningVersion(role="live", model=model, url=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        server.server_close()
        thread.join()


def test_only_scoring_counts_and_only_single_images_are_timed():
    version = Version().scored(3).failed(1)
    version.metrics.request("/score/batch", "POST", 200, 4.0)
    version.metrics.request("/model", "GET", 500, 9.0)
    version.metrics.request("/score", "POST", 422, 0.01)
    seen = version.read()
    assert (seen.requests, seen.errors, seen.images, seen.timed) == (6, 1, 3, 5)
    assert seen.labels == {"blue": 0, "green": 0, "red": 3}
    assert seen.digest == DIGEST
    assert latency_ms(seen) < 11


def test_what_happened_between_two_readings_is_their_difference():
    version = Version().scored(5)
    before = version.read()
    after = version.scored(2, label="blue").failed(1).read()
    between = after.since(before)
    assert (between.requests, between.errors, between.restarts) == (3, 1, 0)
    assert between.labels == {"blue": 2, "green": 0, "red": 0}


def test_a_counter_that_went_down_counts_from_zero_and_the_restart_as_an_error():
    before = Version().scored(50).read()
    between = Version().scored(4).read().since(before)
    assert (between.requests, between.restarts, between.errors) == (4, 1, 1)
    assert (between + between).restarts == 2


def test_a_version_is_followed_over_a_restart_and_through_silence():
    first, other = Version().scored(10), Version("e" * 64)
    follower = Follower(DIGEST)
    with first.served() as version:
        follower.look(version)
        assert follower.seen.requests == 0, "what it did before is none of its canary"
        first.scored(3)
        follower.look(version)
    follower.look(version)
    follower.look(None)
    with other.served() as version:
        follower.look(version)
    assert (follower.seen.requests, follower.silent) == (3, 3)
    with Version().scored(2).served() as version:
        follower.look(version)
    assert (follower.seen.requests, follower.seen.restarts, follower.silent) == (5, 1, 0)


def test_a_quantile_is_interpolated_within_its_bucket():
    # Half of the requests took at most 10 ms, all took at most 20 ms: the 75th percentile lies in the middle.
    seen = Traffic(seconds={0.01: 50, 0.02: 100, float("inf"): 100})
    assert latency_ms(seen, 0.75) == pytest.approx(15)
    assert latency_ms(seen, 0.25) == pytest.approx(5)
    assert latency_ms(Traffic(seconds={0.01: 0, 0.02: 0, float("inf"): 7})) == 20, "the largest bound that there is"
    assert latency_ms(Traffic(seconds={0.01: 0, float("inf"): 0})) is None


def test_equal_shares_do_not_drift_and_the_index_is_the_published_one():
    assert drift({"a": 50, "b": 50}, {"a": 500, "b": 500})[0] == pytest.approx(0, abs=1e-9)
    # (0.6 - 0.4) ln(0.6 / 0.4), twice
    shares = {"a": 6 * 10**6, "b": 4 * 10**6}
    assert drift(shares, {"a": 4 * 10**6, "b": 6 * 10**6})[0] == pytest.approx(0.1622, abs=1e-4)
    assert drift({"a": 20}, {"b": 20})[0] < 10, "a label that one of them never answers is no infinity"


def test_two_samples_of_one_population_hardly_ever_exceed_what_chance_explains():
    random.seed(4)
    beyond = 0
    for _ in range(500):
        mine, theirs = (dict.fromkeys(LABELS, 0) for _ in range(2))
        for counts, images in ((mine, 25), (theirs, 200)):
            for label in random.choices(LABELS, weights=(1, 2, 4), k=images):
                counts[label] += 1
        index, by_chance = drift(mine, theirs)
        beyond += index > by_chance
    assert beyond <= 3


LIMITS = Canary(max_error_rate=0.1, min_requests=20, max_drift=0.25)


def words(seen: Traffic, limits: Canary | Watch = LIMITS, other: Traffic | None = None) -> str:
    return "; ".join(exceeded(limits, seen, latency_limit_ms=100, other=other))


def test_errors_are_beyond_doubt_once_there_are_too_many_for_the_least_number_of_requests():
    assert words(Version().failed(2).read()) == ""
    assert words(Version().failed(3).read()) == "errors: 3 in 3 requests; the limit is 10.0%"
    assert words(Version().scored(96).failed(4).read()) == ""
    assert words(Traffic(restarts=3)).startswith("errors: 3 in 0 requests, 3 of them a process that ended")


def test_latency_is_judged_by_enough_requests_and_the_nearest_limit():
    slow = Version().scored(19, seconds=0.2)
    assert words(slow.read()) == ""
    assert words(slow.scored(1, seconds=0.2).read()).startswith(
        "latency: 245 ms at the 95th percentile; the limit is 100"
    )
    assert words(slow.read(), LIMITS.model_copy(update={"latency_p95_ms": 300.0})) == ""


def test_drift_is_judged_by_enough_images_of_both_and_not_where_any_is_allowed():
    mine, theirs = Version().scored(200, label="blue").read(), Version().scored(200, label="red").read()
    assert words(mine, other=theirs).startswith("drift: its labels differ from the other version's by ")
    assert words(mine, other=mine) == ""
    assert words(mine, other=None) == ""
    assert words(mine, other=Version().scored(19, label="red").read()) == ""
    assert words(mine, LIMITS.model_copy(update={"max_drift": None}), other=theirs) == ""


def test_a_watch_is_held_to_the_same():
    assert "errors" in words(Version().failed(1).read(), Watch())
