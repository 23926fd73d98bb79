"""Where clients of an endpoint are led: the name that they use, and what it leads to."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

from infra.azure.access.clients import client_options, resource_client
from infra.azure.access.credentials import credential
from infra.azure.access.errors import azure_errors
from infra.azure.endpoint.container_instances.groups import Group
from infra.azure.endpoint.environment import PORT, ScoringEnvironment
from infra.errors import ConfigurationError, NotProvisioned

if TYPE_CHECKING:
    from azure.mgmt.privatedns import PrivateDnsManagementClient

TTL_SECONDS: Final = 10
"""So long may a client go on with the version before."""
WEIGHT: Final = 1000
"""The highest that Traffic Manager knows."""
RECORD: Final = "scoring"
DNS_API: Final = "2020-06-01"
TRAFFIC_MANAGER_API: Final = "2018-08-01"
NO_DIVISION: Final = (
    "{name} can't divide its traffic, as `gates.canary` asks: the alias in its private DNS zone leads to one container "
    "group at a time."
)
NO_CANARY: Final = (
    "Remove `gates.canary` from the environment's file (`gates.shadow` replays real images instead), set "
    "`azure.private: false`, or take `azure.endpoint: app-service`."
)


class Router(Protocol):
    """Leads the clients of one environment to the live container group."""

    @property
    def url(self) -> str:
        """What clients use."""
        ...

    def address(self, group: Group) -> str:
        """Where this group alone answers."""
        ...

    def announce(self, group: Group) -> None:
        """Make its own address known; it takes no traffic by that. Its IP address may change with each start."""
        ...

    def lead_to(self, live: Group) -> None:
        """All new connections go to this group. Doing it twice changes nothing; it ends a division."""
        ...


def router_of(target: ScoringEnvironment) -> Router:
    """The one that the environment's file asks for."""
    return PrivateNames(target) if target.environment.azure.private else TrafficManager(target)


def dividing_router(target: ScoringEnvironment) -> "TrafficManager":
    """The one that can give a candidate a share of the clients.

    Raises:
        ConfigurationError: The environment's name leads to one group at a time.
    """
    if target.environment.azure.private:
        raise ConfigurationError(NO_DIVISION.format(name=target.name), next_step=NO_CANARY)
    return TrafficManager(target)


class PrivateNames:
    """Names in the private DNS zone of the virtual network.

    `scoring` is an alias of `scoring-blue` or `scoring-green`, so a switch is one write, and a candidate has a name
    that the zone's certificate may cover.
    """

    def __init__(self, target: ScoringEnvironment) -> None:
        self._target = target
        self._resources = target.resources
        if not self._resources.dns_zone or not self._resources.endpoint_subnet_id:
            raise NotProvisioned(f"The environment {target.name} is private but has no subnet and DNS zone.")

    @property
    def url(self) -> str:
        return f"{_scheme(self._target)}://{RECORD}.{self._resources.dns_zone}:{PORT}"

    def address(self, group: Group) -> str:
        return f"{_scheme(self._target)}://{self._own_name(group)}:{PORT}"

    def announce(self, group: Group) -> None:
        if group.ip:
            from azure.mgmt.privatedns.models import ARecord

            self._put("A", f"{RECORD}-{group.colour}", a_records=[ARecord(ipv4_address=group.ip)])

    def lead_to(self, live: Group) -> None:
        from azure.mgmt.privatedns.models import CnameRecord

        self._put("CNAME", RECORD, cname_record=CnameRecord(cname=self._own_name(live)))

    def _own_name(self, group: Group) -> str:
        return f"{RECORD}-{group.colour}.{self._resources.dns_zone}"

    def _put(self, kind: str, name: str, **content: Any) -> None:
        from azure.mgmt.privatedns.models import RecordSet, RecordSetProperties

        record = RecordSet(properties=RecordSetProperties(ttl=TTL_SECONDS, **content))
        zone = self._resources.dns_zone
        with azure_errors(f"writing the record {name} of the zone {zone}"):
            dns_client(self._resources.subscription_id).record_sets.create_or_update(
                self._resources.resource_group, zone, kind, name, record
            )


class TrafficManager:
    """A Traffic Manager profile, whose name leads to the public address of the live container group.

    Its endpoints have weights; the profile is written as a whole, so a switch is one write. It answers questions for a
    name and sees no connection: the weights divide the clients that ask, each for as long as it keeps the answer.
    """

    def __init__(self, target: ScoringEnvironment) -> None:
        self._target = target
        self._resources = target.resources
        self._name = f"{target.settings.azure_prefix}-{target.name}"

    @property
    def url(self) -> str:
        return f"{_scheme(self._target)}://{self._label}.trafficmanager.net:{PORT}"

    def address(self, group: Group) -> str:
        return f"{_scheme(self._target)}://{group.fqdn}:{PORT}"

    def announce(self, group: Group) -> None:
        """Nothing to do: Azure itself keeps the name of a public container group."""

    def lead_to(self, live: Group) -> None:
        self._write(self._profile((live, WEIGHT)))

    def divide(self, live: Group, candidate: Group, share: float) -> None:
        """This share (0 to 0.5) of the clients goes to the candidate, the rest to the live group."""
        weight = max(1, round(share * WEIGHT))
        self._write(self._profile((live, WEIGHT - weight), (candidate, weight)))

    def _write(self, content: dict[str, Any]) -> None:
        profile = f"traf-{self._name}"
        resource_id = self._resources.resource_id("Microsoft.Network/trafficManagerProfiles", profile)
        resources = resource_client(self._resources.subscription_id).resources
        with azure_errors(f"writing the Traffic Manager profile {profile}"):
            resources.begin_create_or_update_by_id(resource_id, TRAFFIC_MANAGER_API, content).result()

    @property
    def _label(self) -> str:
        return f"{self._name}-{self._resources.unique_suffix}"

    def _profile(self, *weights: tuple[Group, int]) -> dict[str, Any]:
        return {
            "location": "global",
            "tags": {"ahc-environment": self._target.name},
            "properties": {
                "profileStatus": "Enabled",
                "trafficRoutingMethod": "Weighted",
                "dnsConfig": {"relativeName": self._label, "ttl": TTL_SECONDS},
                "monitorConfig": {
                    "protocol": _scheme(self._target).upper(),
                    "port": PORT,
                    "path": "/health/ready",
                    "intervalInSeconds": 10,
                    "timeoutInSeconds": 5,
                    "toleratedNumberOfFailures": 1,
                },
                "endpoints": [
                    {
                        "name": group.colour,
                        "type": "Microsoft.Network/trafficManagerProfiles/externalEndpoints",
                        "properties": {"target": group.fqdn, "endpointStatus": "Enabled", "weight": weight},
                    }
                    for group, weight in weights
                ],
            },
        }


@lru_cache(maxsize=4)
def dns_client(subscription_id: str) -> "PrivateDnsManagementClient":
    from azure.mgmt.privatedns import PrivateDnsManagementClient

    return PrivateDnsManagementClient(credential(), subscription_id, api_version=DNS_API, **client_options())


def _scheme(target: ScoringEnvironment) -> str:
    return "https" if target.environment.azure.certificate else "http"
