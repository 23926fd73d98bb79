"""The watch after a switch: beyond a limit, the version before comes back by itself."""

from time import monotonic, sleep
from typing import Final

from prefect import get_run_logger

from infra.backend import backend, release_target
from infra.config.environments import Environment
from infra.config.gates import Watch
from infra.errors import EndpointUnreachable, PlatformError, WatchFailed
from infra.ports import Endpoint
from infra.releases.ledger import SERVING
from infra.releases.traffic import Follower, Traffic, read_traffic
from infra.settings import get_settings
from tasks.framework.artifacts import Progress, create_markdown_artifact
from tasks.framework.gate_results import gate_results, show_gate
from tasks.framework.stage import stage
from tasks.release.deploy_and_switch import Live
from tasks.release.ledger_note import note
from tasks.release.rollback import roll_back
from tasks.release.traffic import LOOK_SECONDS, Addresses, comparison, exceeded_limits, figures, one_line

BY: Final = "watch"
BASELINE_IMAGES: Final = 500
"""Fewer images of the version before are no measure of drift: those of its smoke test are among them."""


@stage("Watch", "watch {live.model.name} v{live.model.version} in {environment.name}", always=True)
def watch(live: Live, environment: Environment) -> Live:
    """Look at a version that was switched to until its time is over; one that was watched before is not again.

    Where something else was released or rolled back in the meantime, the watch ends without a word.

    Raises:
        WatchFailed: Names each limit with its figures, and what came back.
        EndpointUnreachable: The endpoint as a whole was stopped.
    """
    limits = environment.gates.watch
    if limits is None or _settled(environment.name, live.model.digest):
        return live
    target = release_target(environment.name, get_settings()).endpoint()
    watched = _Watched(target, live, environment, limits)
    problems = watched.run()
    if watched.replaced:
        get_run_logger().info("%s runs another version by now: the watch of this one is over.", environment.name)
        return live
    watched.publish(problems)
    if problems:
        raise _bring_back(target, live, environment, "; ".join(problems))
    note(environment.name, "settled", live.model, by=BY, details=figures(watched.follower.seen))
    return live


class _Watched:
    """The live version, followed; and what the one before did, where that is enough to compare with.

    Attributes:
        replaced: Another version is live by now.
    """

    def __init__(self, target: Endpoint, live: Live, environment: Environment, limits: Watch) -> None:
        self.follower = Follower(live.model.digest)
        self.replaced = False
        self._title = live.model.label
        self._digest = live.model.digest
        self._environment = environment
        self._limits = limits
        self._addresses = Addresses(target)
        self._compared: Traffic | None = None

    def run(self) -> list[str]:
        """Until the time is over, a limit is exceeded or another version is live; answers the limits."""
        name, seconds = self._environment.name, self._limits.seconds
        progress = Progress(f"watch-progress-{name}", f"{self._title} is watched in {name}")
        self._look()
        self._compared = self._baseline()
        begun = monotonic()
        while not self.replaced and (passed := monotonic() - begun) < seconds:
            sleep(min(LOOK_SECONDS, seconds - passed))
            self._look()
            if not self.replaced and (problems := self._exceeded()):
                self._look(again=True)
                return [] if self.replaced else problems
            progress.update(min(monotonic() - begun, seconds), seconds, one_line(self.follower.seen))
        return []

    def publish(self, problems: list[str]) -> None:
        name = self._environment.name
        versions = {self._title: self.follower.seen}
        if self._compared is not None:
            versions["the version before"] = self._compared
        outcome = f"**Rolled back.** {'; '.join(problems)}." if problems else "Everything stayed within its limits."
        create_markdown_artifact(
            key=f"watch-{name}",
            description=f"Watch in {name}: {'rolled back' if problems else 'went well'}",
            markdown=f"# Watch of {self._title} in {name}\n\n{outcome}\n\n{comparison(versions)}",
        )
        show_gate(f"watch-{name}", gate_results("watch", problems, if_none="Everything stayed within its limits."))

    def _look(self, *, again: bool = False) -> None:
        versions = self._addresses.now(again=again or bool(self.follower.silent))
        live = versions.get("live")
        self.replaced = live is not None and live.model.digest != self._digest
        if not self.replaced:
            self.follower.look(live)

    def _baseline(self) -> Traffic | None:
        """What the version before did since it was started; None where that is too little."""
        previous = self._addresses.now().get("previous")
        if previous is None or self._limits.max_drift is None:
            return None
        try:
            before = read_traffic(previous)
        except EndpointUnreachable:
            return None
        return before if before.images >= BASELINE_IMAGES else None

    def _exceeded(self) -> list[str]:
        latency = self._environment.gates.latency_p95_ms
        return exceeded_limits(self._limits, self.follower, latency_limit_ms=latency, other=self._compared)


def _settled(environment: str, digest: str) -> bool:
    """Whether the ledger tells more of this version's last switch than that it was made."""
    for event in backend(get_settings()).ledger().newest(environment):
        if event.kind in SERVING or event.kind == "settled":
            return event.kind != "switched" and event.model.digest == digest
    return False


def _bring_back(target: Endpoint, live: Live, environment: Environment, reason: str) -> WatchFailed:
    """Bring the version before back; answers the error to raise."""
    bad = f"{live.model.label} went beyond its limits in {environment.name}: {reason}."
    before = target.status().previous
    if before is None:
        return WatchFailed(
            f"{bad} It stays, as there is no version before it.",
            next_step=f"Name one that works: `ahc rollback {environment.name} --to VERSION`.",
        )
    try:
        back = roll_back(environment, before, reason, BY)
    except PlatformError as error:
        failed = WatchFailed(
            f"{bad} Bringing back {before.label} failed as well: {error}",
            next_step=f"Look at `ahc status`, then `ahc rollback {environment.name}`.",
        )
        failed.__cause__ = error
        return failed
    return WatchFailed(f"{bad} {back.model.label} was brought back.")
