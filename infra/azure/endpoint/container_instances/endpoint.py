"""The scoring endpoint of one environment on Azure Container Instances: two container groups and a name."""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.azure.access.errors import azure_errors
from infra.azure.endpoint.container_instances.checks import container_checks
from infra.azure.endpoint.container_instances.definition import GroupDefinition
from infra.azure.endpoint.container_instances.groups import Colour, ContainerGroups, Group, Groups
from infra.azure.endpoint.container_instances.routers import Router, router_of
from infra.azure.endpoint.container_instances.traffic import ContainerTraffic
from infra.azure.endpoint.environment import LONGEST_PAUSE, ScoringEnvironment, candidate_replaced
from infra.azure.endpoint.preflight import preflight
from infra.config.environments import Environment
from infra.errors import CandidateFailed, ConfigurationError, NothingToRollBackTo, PlatformError, ServiceUnavailable
from infra.ports import Candidate, EndpointStatus, LiveModel, RunningRole, RunningVersion, SecretStore
from infra.settings import Settings
from infra.waiting import polls

if TYPE_CHECKING:
    from azure.core.polling import LROPoller

START_SECONDS: Final = 900.0
"""A large image takes minutes to be pulled."""
WARM_SECONDS: Final = 300.0


class ContainerInstancesEndpoint:
    """`infra.ports.Endpoint` on two container groups, blue and green.

    The tags of the groups are the only state, and each change of roles begins with one write that decides it; whoever
    comes next finishes what was interrupted. A candidate takes the free colour, or else that of the previous version,
    which can't be rolled back to from then on.
    """

    def __init__(self, environment: Environment, settings: Settings, secrets: SecretStore) -> None:
        self._target = ScoringEnvironment(environment, settings, secrets)
        self._prefix = f"{settings.azure_prefix}-{environment.name}"

    @property
    def environment(self) -> str:
        return self._target.name

    def status(self) -> EndpointStatus:
        try:
            groups, url = self._groups.all(), self._router.url
        except PlatformError as error:
            return self._status("unhealthy", detail=str(error))
        live = groups.live
        if live is None:
            return self._status("stopped", url=url, detail="No version was switched to yet.")
        if live.stopped:
            return self._status("stopped", url=url, groups=groups, detail=f"{live.name} is stopped.")
        # While clients are divided, the endpoint's own name may lead to either version.
        address = self._router.address(live) if groups.divided else url
        try:
            with self._target.client(address) as client:
                answering = client.model()
        except PlatformError as error:
            return self._status("unhealthy", url=url, groups=groups, detail=f"{error} {self._troubles(live)}".strip())
        return self._status("running", url=url, groups=groups, live=answering)

    def deploy(self, bundle: Path, model: LiveModel) -> Candidate:
        with self._target.exclusive():
            groups = self._traffic.undivided()
            definition = self._definition(bundle, model)
            colour = groups.idle_colour()
            creation = self._create(groups.of_colour(colour), colour, definition, model)
            try:
                group = self._await_ready(colour, model, creation, START_SECONDS)
            except PlatformError:
                # What went wrong is in the error; a group that nobody waits for would cost money.
                with suppress(PlatformError):
                    self._groups.delete(colour)
                raise
        return Candidate(
            environment=self.environment, model=model, url=self._router.address(group), handle=group.handle
        )

    def switch(self, candidate: Candidate) -> LiveModel:
        with self._target.exclusive():
            groups = self._traffic.settled()
            live, waiting = groups.live, groups.candidate
            if live is not None and live.handle == candidate.handle:
                return self._traffic.led_to(live)
            if waiting is None or waiting.handle != candidate.handle:
                raise candidate_replaced(candidate)
            self._warm(waiting)
            return self._traffic.take_over(waiting, groups, "switching")

    def discard(self, candidate: Candidate) -> None:
        with self._target.exclusive():
            waiting = self._traffic.undivided().candidate
            if waiting is not None and waiting.handle == candidate.handle:
                self._groups.delete(waiting.colour)

    def preflight(self) -> Sequence[str]:
        return preflight(self._target, lambda: container_checks(self._target, self._groups))

    def versions(self) -> Sequence[RunningVersion]:
        groups, router = self._groups.all(), self._router
        roles: dict[RunningRole, Group | None] = {
            "live": groups.live,
            "previous": groups.previous,
            "candidate": groups.candidate,
        }
        return [
            RunningVersion(role=role, model=group.model, url=router.address(group))
            for role, group in roles.items()
            if group is not None and group.running
        ]

    def split(self, candidate: Candidate, share: float) -> None:
        """The share is of the clients that ask for the endpoint's name: few clients make a coarse share."""
        with self._target.exclusive():
            groups = self._traffic.settled() if share else self._traffic.undivided()
            live, waiting = groups.live, groups.candidate
            if not share:
                return
            if waiting is None or waiting.handle != candidate.handle or not waiting.running:
                raise candidate_replaced(candidate)
            if live is None:
                raise ConfigurationError(f"Nothing is live in {self.environment}: there is no traffic to divide.")
            self._traffic.divide(live, waiting, share)

    def rollback(self) -> LiveModel:
        with self._target.exclusive():
            groups = self._groups.all()
            if groups.live is not None and groups.live.role == "rolling-back":
                # The rollback that was interrupted is this one.
                return self._traffic.led_to(self._traffic.finish(groups.live, groups))
            groups = self._traffic.undivided()
            if groups.live is None or groups.previous is None:
                raise NothingToRollBackTo(f"The endpoint {self.environment} has no earlier version.")
            self._warm(groups.previous)
            return self._traffic.take_over(groups.previous, groups, "rolling-back")

    def refresh_keys(self) -> None:
        self._target.ensure_keys()
        for group in self._groups.all().groups:
            if group.stopped:
                continue
            url = self._router.address(group)
            if group.gave_up and not self._target.ready(url):
                self._groups.restart(group)
            self._target.await_keys(url)

    def logs(self, lines: int = 50) -> Sequence[str]:
        groups = self._groups.all()
        group = groups.live or groups.candidate
        return self._groups.logs(group, lines) if group else []

    def stop(self) -> None:
        with self._target.exclusive():
            for group in self._traffic.undivided().groups:
                if not group.stopped:
                    self._groups.stop(group)
            # Azure answers before it has stopped them.
            for _ in polls(WARM_SECONDS, longest_pause=LONGEST_PAUSE):
                if all(group.stopped for group in self._groups.all().groups):
                    return
            raise ServiceUnavailable(f"The container groups of {self.environment} don't stop.")

    def start(self) -> EndpointStatus:
        with self._target.exclusive():
            groups = self._traffic.undivided()
            if groups.live is not None:
                for group in (groups.live, groups.previous):
                    if group is not None and not group.running:
                        self._groups.start(group)
                self._traffic.led_to(self._await_ready(groups.live.colour, groups.live.model))
        return self.status()

    @property
    def _groups(self) -> ContainerGroups:
        resources = self._target.resources
        return ContainerGroups(resources.subscription_id, resources.resource_group, f"ci-{self._prefix}")

    @property
    def _router(self) -> Router:
        return router_of(self._target)

    @property
    def _traffic(self) -> ContainerTraffic:
        return ContainerTraffic(self._target, self._groups, self._router)

    def _definition(self, bundle: Path, model: LiveModel) -> GroupDefinition:
        self._target.ensure_keys()
        return GroupDefinition(
            image=self._target.image(),
            registry=self._target.registry,
            config=self._target.config(model, bundle_url=self._target.publish(bundle, model.digest)),
            target=self._target.environment.azure,
            resources=self._target.resources,
        )

    def _create(
        self, present: Group | None, colour: Colour, definition: GroupDefinition, model: LiveModel
    ) -> "LROPoller[Any] | None":
        """Begin to make the candidate; None where an interrupted deployment has left the same one."""
        fingerprint = definition.fingerprint()
        if present is not None:
            same = present.role == "candidate" and present.definition == fingerprint
            if same and present.provisioning != "Failed" and not present.stopped and not present.gave_up:
                return None
            self._groups.delete(colour)
        tags = {
            "ahc-environment": self.environment,
            "ahc-role": "candidate",
            "ahc-handle": f"{colour}-{model.digest[:12]}-{uuid.uuid4().hex[:8]}",
            "ahc-model": model.name,
            "ahc-version": str(model.version),
            "ahc-digest": model.digest,
            "ahc-definition": fingerprint,
            "ahc-correlation": definition.config.correlation_id,
        }
        label = f"{self._prefix}-{colour}-{self._target.resources.unique_suffix}"
        return self._groups.create(colour, definition, label, tags)

    def _await_ready(
        self,
        colour: Colour,
        model: LiveModel,
        creation: "LROPoller[Any] | None" = None,
        seconds: float = WARM_SECONDS,
    ) -> Group:
        """Wait until this group answers as this version.

        Raises:
            CandidateFailed: Its container ended or its image can't be pulled, or it took too long.
        """
        name, label = self._groups.name(colour), model.label
        announced = ""
        for _ in polls(seconds, longest_pause=LONGEST_PAUSE):
            group = self._groups.get(colour)
            if group is None:
                raise CandidateFailed(f"{name} with {label} was deleted by someone else.", process_exit_code=None)
            if group.running:
                if group.ip != announced:
                    self._router.announce(group)
                    announced = group.ip
                if self._target.answers(self._router.address(group), model):
                    return group
            # Not before: one that ended once and serves again is fine.
            if group.gave_up:
                why = self._groups.why(group)
                raise CandidateFailed(f"{label} in {name} failed. {why.message}", process_exit_code=why.exit_code)
            if creation is not None and creation.done():
                with azure_errors(f"creating the container group {name} with {label}"):
                    creation.result()
                creation = None
        assert group is not None
        why = self._groups.why(group)
        raise CandidateFailed(f"{label} in {name} is not ready in time. {why.message}", process_exit_code=None)

    def _warm(self, group: Group) -> Group:
        """Let it answer before it takes traffic."""
        if not group.running:
            self._groups.start(group)
        return self._await_ready(group.colour, group.model)

    def _troubles(self, live: Group) -> str:
        try:
            return self._groups.why(live).message if live.gave_up else f"{live.name} is {live.state or 'not there'}."
        except PlatformError as error:
            return str(error)

    def _status(self, state: Any, *, url: str = "", groups: Groups | None = None, **facts: Any) -> EndpointStatus:
        previous = groups.previous if groups else None
        return EndpointStatus(
            environment=self.environment, url=url, state=state, previous=previous.model if previous else None, **facts
        )
