"""Which container group the clients of an endpoint get: tags decide it, and the router makes it known."""

import time
from typing import Final

from infra.azure.endpoint.container_instances.groups import ContainerGroups, Group, Groups
from infra.azure.endpoint.container_instances.routers import TTL_SECONDS, Router, dividing_router
from infra.azure.endpoint.environment import ScoringEnvironment
from infra.ports import LiveModel

LEAD_SECONDS: Final = 180.0
"""For a new name to be known everywhere, and for clients to ask for it again."""
DRAIN_SECONDS: Final = 2.0 * TTL_SECONDS
"""For clients to ask again for a name that no longer leads to a group which is to end."""


class ContainerTraffic:
    """The traffic of one endpoint; its holder lets nobody else change it meanwhile.

    A change begins with one write to a tag, and whoever comes next finishes what was interrupted.
    """

    def __init__(self, target: ScoringEnvironment, groups: ContainerGroups, router: Router) -> None:
        self._target = target
        self._groups = groups
        self._router = router

    def settled(self) -> Groups:
        """Both groups, after a change of roles that was interrupted is finished."""
        groups = self._groups.all()
        if groups.unfinished and groups.live is not None:
            self.finish(groups.live, groups)
            return self._groups.all()
        return groups

    def undivided(self) -> Groups:
        """Both groups settled, and a candidate without clients: what it had of them has gone to the live group."""
        groups = self.settled()
        if groups.divided and groups.live is not None and groups.candidate is not None:
            self._router.lead_to(groups.live)
            time.sleep(DRAIN_SECONDS)
            self._groups.tag(groups.candidate, share="0")
            return self._groups.all()
        return groups

    def divide(self, live: Group, candidate: Group, share: float) -> None:
        """Give the candidate this share of the clients; raises as `dividing_router`."""
        router = dividing_router(self._target)
        self._groups.tag(candidate, share=f"{share:g}")
        router.divide(live, candidate, share)

    def take_over(self, group: Group, groups: Groups, role: str) -> LiveModel:
        """Make this group the live one; `role` says by what change until it is finished."""
        # This write decides: after it, the group is what the endpoint leads to, whoever finishes it.
        decided = self._groups.tag(group, role=role, order=str(groups.next_order()))
        return self.led_to(self.finish(decided, groups), again=False)

    def finish(self, decided: Group, groups: Groups) -> Group:
        """All that follows from the write that decided."""
        self._router.lead_to(decided)
        for other in groups.groups:
            if other.colour != decided.colour and other.role != "candidate":
                self._groups.tag(other, role="previous")
        return self._groups.tag(decided, role="live", share="0")

    def led_to(self, live: Group, *, again: bool = True) -> LiveModel:
        """Wait until the endpoint's own name answers with it."""
        if again:
            self._router.announce(live)
            self._router.lead_to(live)
        self._target.await_answer(self._router.url, live.model, LEAD_SECONDS)
        return live.model
