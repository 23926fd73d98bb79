"""The canary: a candidate shows what it does with a share of the real traffic before it gets all of it."""

from contextlib import suppress
from time import monotonic, sleep
from typing import Final

from prefect import get_run_logger

from infra.backend import release_target
from infra.config.environments import Environment
from infra.config.gates import Canary
from infra.errors import CanaryAborted, EndpointUnreachable, PlatformError, ReleaseHeld
from infra.ports import Candidate, Endpoint, LiveModel
from infra.releases.traffic import Follower
from infra.settings import get_settings
from tasks.framework.artifacts import Progress, create_markdown_artifact
from tasks.framework.gate_results import gate_results, show_gate
from tasks.framework.stage import Result, stage
from tasks.release.ledger_note import note
from tasks.release.traffic import LOOK_SECONDS, Addresses, comparison, exceeded_limits, figures, one_line

BY: Final = "canary"


class Canaried(Result):
    """A canary that went well; without requests where there was no live version to share its traffic."""

    requests: int = 0
    errors: int = 0


@stage("Canary", "canary of {candidate.model.name} v{candidate.model.version} in {environment.name}", always=True)
def canary(candidate: Candidate, environment: Environment) -> Canaried:
    """Give the candidate its share for a while; beyond a limit it is taken back and discarded at once.

    A candidate that does well keeps its share until the switch.

    Raises:
        CanaryAborted: Names each limit with its figures; the live version has all the traffic again.
        CandidateFailed: The candidate is gone.
        ReleaseHeld: Somebody released or rolled back meanwhile; the candidate is discarded.
        EndpointUnreachable: The live version doesn't answer, so there is nothing to compare with.
    """
    limits = environment.gates.canary
    assert limits is not None, "the flow asks for a canary where the environment declares one"
    target = release_target(environment.name, get_settings()).endpoint()
    live = _live(target, environment)
    if live is None:
        get_run_logger().info("%s has no live version yet to share its traffic: no canary.", environment.name)
        return Canaried()
    trial = _Trial(target, candidate, live, environment, limits)
    try:
        problems = trial.run()
    except BaseException:
        # However this run ends, the candidate has no traffic afterwards.
        with suppress(PlatformError):
            target.split(candidate, 0)
        raise
    trial.publish(problems)
    seen = trial.candidate.seen
    if problems:
        reason = "; ".join(problems)
        target.discard(candidate)
        note(environment.name, "aborted", candidate.model, by=BY, reason=reason, details=trial.figures())
        raise CanaryAborted(
            f"{candidate.model.label} went beyond its limits with {limits.share:.0%} of the traffic of "
            f"{environment.name}: {reason}."
        )
    return Canaried(requests=seen.requests, errors=seen.errors)


class _Trial:
    """One canary: both versions, followed within the same window."""

    def __init__(
        self, target: Endpoint, candidate: Candidate, live: LiveModel, environment: Environment, limits: Canary
    ) -> None:
        self.candidate = Follower(candidate.model.digest)
        self.live = Follower(live.digest)
        self._target = target
        self._handle = candidate
        self._titles = (f"candidate {candidate.model.label}", f"live {live.label}")
        self._environment = environment
        self._limits = limits
        self._addresses = Addresses(target)

    def run(self) -> list[str]:
        """Until the time is over or a limit is exceeded beyond doubt; answers the limits that are."""
        name, seconds = self._environment.name, self._limits.seconds
        progress = Progress(f"canary-progress-{name}", f"{self._titles[0]} takes {self._limits.share:.0%} of {name}")
        self._look()
        self._target.split(self._handle, self._limits.share)
        begun = monotonic()
        while (passed := monotonic() - begun) < seconds:
            sleep(min(LOOK_SECONDS, seconds - passed))
            self._look()
            if problems := self._exceeded():
                self._target.split(self._handle, 0)
                return problems
            progress.update(min(monotonic() - begun, seconds), seconds, one_line(self.candidate.seen))
        return self._too_few()

    def publish(self, problems: list[str]) -> None:
        name, limits = self._environment.name, self._limits
        create_markdown_artifact(
            key=f"canary-{name}",
            description=f"Canary in {name}: {'aborted' if problems else 'went well'}",
            markdown=f"# Canary in {name}\n\n{self._titles[0]} took {limits.share:.0%} of new connections for up to "
            f"{limits.seconds:g} s. {_findings(problems)}\n\n"
            + comparison(dict(zip(self._titles, (self.candidate.seen, self.live.seen), strict=True))),
        )
        show_gate(f"canary-{name}", gate_results("canary", problems, if_none="Everything stayed within its limits."))

    def figures(self) -> dict[str, object]:
        return {"candidate": figures(self.candidate.seen), "live": figures(self.live.seen)}

    def _look(self) -> None:
        versions = self._addresses.now(again=bool(self.candidate.silent or self.live.silent))
        if "live" in versions and versions["live"].model.digest != self.live.seen.digest:
            self._target.discard(self._handle)
            raise ReleaseHeld(
                f"{self._environment.name} was changed during the canary of {self._titles[0]}: it runs "
                f"{versions['live'].model.label} now.",
                next_step="Rerun this release with `ahc rerun`, which checks anew, if it is still wanted.",
            )
        for role, follower in (("candidate", self.candidate), ("live", self.live)):
            follower.look(versions.get(role))

    def _exceeded(self) -> list[str]:
        latency = self._environment.gates.latency_p95_ms
        return exceeded_limits(self._limits, self.candidate, latency_limit_ms=latency, other=self.live.seen)

    def _too_few(self) -> list[str]:
        requests, least = self.candidate.seen.requests, self._limits.min_requests
        if requests >= least:
            return []
        return [f"traffic: {requests} requests in {self._limits.seconds:g} s, and fewer than {least} decide nothing"]


def _live(target: Endpoint, environment: Environment) -> LiveModel | None:
    """What is live; None where nothing was ever switched to."""
    status = target.status()
    if status.state == "unhealthy":
        raise EndpointUnreachable(
            f"The live version of {environment.name} doesn't answer, so there is nothing to compare a candidate with. "
            f"{status.detail}",
            next_step=f"Bring one back that works, which takes no canary: `ahc rollback {environment.name}`.",
        )
    return status.live


def _findings(problems: list[str]) -> str:
    return f"**Aborted.** {'; '.join(problems)}." if problems else "Everything stayed within its limits."
