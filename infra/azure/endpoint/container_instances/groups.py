"""The two container groups of an environment, blue and green: their tags say which of them is live."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from infra.azure.access.clients import REPEATABLE, container_client
from infra.azure.access.errors import azure_errors, if_present
from infra.azure.endpoint.container_instances.definition import CONTAINER, GroupDefinition, container_group
from infra.azure.endpoint.container_log import LastWords, last_words
from infra.ports import LiveModel
from model.faults import known_errors
from model.values import Frozen

if TYPE_CHECKING:
    from azure.core.polling import LROPoller
    from azure.mgmt.containerinstance import ContainerInstanceManagementClient
    from azure.mgmt.containerinstance.models import ContainerGroup

Colour = Literal["blue", "green"]
Role = Literal["candidate", "switching", "rolling-back", "live", "previous"]
COLOURS: Final[tuple[Colour, ...]] = ("blue", "green")
UNFINISHED: Final = ("switching", "rolling-back")
LEADING: Final = ("live", *UNFINISHED)

MANY_PULLS: Final = 3
"""The first pulls may fail where the identity's role has just been assigned."""
MANY_RESTARTS: Final = 3


class Group(Frozen):
    """One container group as it is now."""

    name: str
    colour: Colour
    role: Role
    handle: str
    order: int
    """Grows with each switch: of two groups that lead, the later one does."""
    model: LiveModel
    definition: str
    """Fingerprint of the definition that it was made from."""
    tags: dict[str, str]
    share: float = 0
    """Of the clients, a candidate's, or what it may have of them: it is noted first and taken away last."""
    ip: str = ""
    fqdn: str = ""
    state: str = ""
    """Running, Pending, Stopped, Succeeded or Failed."""
    provisioning: str = ""
    pull_failure: str = ""
    exit_code: int | None = None
    """What its container ended with last, unless it ended in good order or runs for the first time."""
    restarts: int = 0
    memory_exceeded: bool = False

    @property
    def running(self) -> bool:
        return self.state == "Running"

    @property
    def stopped(self) -> bool:
        return self.state == "Stopped"

    @property
    def gave_up(self) -> bool:
        """Whether waiting won't help: its image can't be pulled, or its container ends again and again."""
        if self.pull_failure:
            return True
        if self.exit_code is None:
            return False
        return self.exit_code not in _passing_exits() or self.restarts >= MANY_RESTARTS

    @classmethod
    def of(cls, answer: "ContainerGroup", colour: Colour) -> Self:
        """Read what Azure answers; a group without our tags is a candidate that nobody waits for."""
        tags = dict(answer.tags or {})
        address: Any = answer.ip_address
        view: Any = answer.instance_view
        return cls(
            name=answer.name,
            colour=colour,
            role=tags.get("ahc-role", "candidate"),
            handle=tags.get("ahc-handle", ""),
            order=int(tags.get("ahc-order", 0)),
            model=LiveModel(
                name=tags.get("ahc-model", ""),
                version=int(tags.get("ahc-version", 0)),
                digest=tags.get("ahc-digest", ""),
            ),
            definition=tags.get("ahc-definition", ""),
            tags=tags,
            share=float(tags.get("ahc-share", 0)),
            ip=(address and address.ip) or "",
            fqdn=(address and address.fqdn) or "",
            state=(view and view.state) or "",
            provisioning=answer.provisioning_state or "",
            **_container_facts(answer),
        )


class Groups(Frozen):
    """Both groups, by what they are for."""

    groups: tuple[Group, ...]

    @property
    def live(self) -> Group | None:
        leading = [group for group in self.groups if group.role in LEADING]
        return max(leading, key=lambda group: group.order, default=None)

    @property
    def previous(self) -> Group | None:
        rest = [group for group in self.groups if group.role in {"previous", *LEADING} and group != self.live]
        return rest[0] if rest else None

    @property
    def candidate(self) -> Group | None:
        return next((group for group in self.groups if group.role == "candidate"), None)

    @property
    def divided(self) -> bool:
        """Whether a candidate may have a share of the clients."""
        return self.candidate is not None and self.candidate.share > 0

    @property
    def unfinished(self) -> bool:
        """Whether a switch or rollback was interrupted."""
        return any(group.role in UNFINISHED for group in self.groups)

    def of_colour(self, colour: Colour) -> Group | None:
        return next((group for group in self.groups if group.colour == colour), None)

    def idle_colour(self) -> Colour:
        """Where a candidate goes: where one is already, else where nothing is, else in place of the previous."""
        if self.candidate:
            return self.candidate.colour
        free = next((colour for colour in COLOURS if self.of_colour(colour) is None), None)
        return free or (self.previous.colour if self.previous else COLOURS[0])

    def next_order(self) -> int:
        return max((group.order for group in self.groups), default=0) + 1


class ContainerGroups:
    """What Azure is asked about them.

    Args:
        subscription_id: Where they are.
        resource_group: Likewise.
        prefix: Their names without the colour.
    """

    def __init__(self, subscription_id: str, resource_group: str, prefix: str) -> None:
        self._subscription_id = subscription_id
        self._resource_group = resource_group
        self._prefix = prefix

    def name(self, colour: Colour) -> str:
        return f"{self._prefix}-{colour}"

    def all(self) -> Groups:
        return Groups(groups=tuple(group for colour in COLOURS if (group := self.get(colour))))

    def get(self, colour: Colour) -> Group | None:
        groups, name = self._client.container_groups, self.name(colour)
        with azure_errors(f"reading the container group {name}"):
            answer = if_present(lambda: groups.get(self._resource_group, name))
        return Group.of(answer, colour) if answer else None

    def create(
        self, colour: Colour, definition: GroupDefinition, dns_label: str, tags: Mapping[str, str]
    ) -> "LROPoller[Any]":
        """Begin to make it; the poller raises the SDK's own errors."""
        group, name = container_group(definition, dns_label, tags), self.name(colour)
        with azure_errors(f"creating the container group {name}"):
            return self._client.container_groups.begin_create_or_update(self._resource_group, name, group)

    def tag(self, group: Group, **changes: str) -> Group:
        """Change tags; `role` stands for `ahc-role`."""
        from azure.mgmt.containerinstance.models import Resource

        tags = group.tags | {f"ahc-{name}": value for name, value in changes.items()}
        with azure_errors(f"tagging the container group {group.name}"):
            changed = self._client.container_groups.update(
                self._resource_group, group.name, Resource(tags=tags), **REPEATABLE
            )
        return Group.of(changed, group.colour)

    def delete(self, colour: Colour) -> None:
        """Delete it and wait until it is gone; one that is not there is fine."""
        groups, name = self._client.container_groups, self.name(colour)
        with azure_errors(f"deleting the container group {name}"):
            if_present(lambda: groups.begin_delete(self._resource_group, name).result())

    def stop(self, group: Group) -> None:
        with azure_errors(f"stopping the container group {group.name}"):
            self._client.container_groups.stop(self._resource_group, group.name)

    def start(self, group: Group) -> None:
        with azure_errors(f"starting the container group {group.name}"):
            self._client.container_groups.begin_start(self._resource_group, group.name).result()

    def restart(self, group: Group) -> None:
        with azure_errors(f"restarting the container group {group.name}"):
            self._client.container_groups.begin_restart(self._resource_group, group.name).result()

    def logs(self, group: Group, lines: int) -> list[str]:
        """The last lines of its container, oldest first; none where it has none yet."""
        containers = self._client.containers
        with azure_errors(f"reading the log of the container group {group.name}"):
            log = if_present(lambda: containers.list_logs(self._resource_group, group.name, CONTAINER, tail=lines))
        return ((log and log.content) or "").splitlines()

    def why(self, group: Group) -> LastWords:
        """Why it does not serve, from its events and its log."""
        if group.pull_failure:
            return LastWords(message=group.pull_failure)
        words = last_words(self.logs(group, 50))
        ended = f"Its container ended with exit code {group.exit_code}" if group.exit_code is not None else "It"
        if group.memory_exceeded:
            ended += " (out of memory)"
        message = f"{ended}: {words.message}" if words.message else f"{ended} left no log."
        return LastWords(message=message, exit_code=words.exit_code if group.exit_code is None else group.exit_code)

    @property
    def _client(self) -> "ContainerInstanceManagementClient":
        return container_client(self._subscription_id)


def _container_facts(answer: "ContainerGroup") -> dict[str, Any]:
    view: Any = answer.containers[0].instance_view if answer.containers else None
    if view is None:
        return {}
    # After a stop and a start, what was before is of another container.
    current, before = view.current_state, view.previous_state if view.restart_count else None
    ended = next((state for state in (current, before) if state and state.state == "Terminated"), None)
    code = ended.exit_code if ended and (ended.exit_code or ended is current) else None
    group: Any = answer.instance_view
    stopped = group is not None and group.state == "Stopped"
    return {
        "pull_failure": _pull_failure(view.events or [], answer.provisioning_state or ""),
        "exit_code": None if stopped else code,
        "restarts": view.restart_count or 0,
        "memory_exceeded": bool(ended and ended.detail_status == "OOMKilled"),
    }


def _pull_failure(events: Sequence[Any], provisioning: str) -> str:
    failed = [event for event in events if event.name == "Failed" and "pull image" in (event.message or "")]
    if not failed or any(event.name == "Started" for event in events):
        return ""
    tries = sum(event.count or 1 for event in failed)
    return str(failed[-1].message) if tries >= MANY_PULLS or provisioning == "Failed" else ""


@lru_cache(maxsize=1)
def _passing_exits() -> frozenset[int]:
    """Exit codes of faults that pass: the container may be started again."""
    return frozenset(kind.exit_code for kind in known_errors().values() if kind.transient)
