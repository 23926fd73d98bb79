"""The web app of an environment and its slot `candidate`, as an endpoint sees them: what runs there, and its log."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from infra.azure.access.clients import REPEATABLE, web_client
from infra.azure.access.errors import azure_errors
from infra.azure.endpoint.container_settings import PREFIX
from infra.errors import NotProvisioned
from infra.ports import LiveModel
from model.values import Frozen

T = TypeVar("T")

SLOT: Final = "candidate"
PRODUCTION: Final = ""
LIVE_COOKIE: Final = "x-ms-routing-name=self"
"""Leads a request to what is in the web app itself, whatever share of its clients the slot gets.

Azure answers a client that it has drawn for the slot with such a cookie, too, and heeds it for an hour, even after the
split has ended: a client that keeps cookies stays with the slot, whatever runs there then.
"""
HANDLE: Final = "AHC_HANDLE"
"""Setting that tells one deployment from another; like all settings of a version it moves with it at a swap."""


class Place(Frozen):
    """The web app itself (`slot` is empty) or its slot, as it is now."""

    slot: str
    host: str
    running: bool
    settings: dict[str, str]

    @property
    def url(self) -> str:
        return f"https://{self.host}"

    @property
    def handle(self) -> str:
        """Of the deployment that runs there; empty where none does."""
        return self.settings.get(HANDLE, "")

    @property
    def model(self) -> LiveModel:
        return LiveModel(
            name=self.settings.get(f"{PREFIX}MODEL_NAME", ""),
            version=int(self.settings.get(f"{PREFIX}MODEL_VERSION", 0)),
            digest=self.settings.get(f"{PREFIX}MODEL_DIGEST", ""),
        )


class WebApp:
    """What Azure is asked about them.

    Args:
        subscription_id: Where the web app is.
        resource_group: Likewise.
        name: Of the web app.
    """

    def __init__(self, subscription_id: str, resource_group: str, name: str) -> None:
        self._subscription_id = subscription_id
        self._resource_group = resource_group
        self.name = name

    def place(self, slot: str) -> Place:
        """What is there now.

        Raises:
            NotProvisioned: The web app or its slot is missing.
        """
        site = self._ask("reading", slot, self._apps.get, self._apps.get_slot)
        settings = self._ask(
            "reading the settings of",
            slot,
            self._apps.list_application_settings,
            self._apps.list_application_settings_slot,
        )
        return Place(
            slot=slot,
            host=site.default_host_name,
            running=site.state == "Running",
            settings=dict(settings.properties or {}),
        )

    def configure(self, image: str, identity_client_id: str, settings: dict[str, str]) -> None:
        """Let the slot run this image with these settings and no others: one write, which starts it anew."""
        self._write(
            settings,
            linux_fx_version=f"DOCKER|{image}",
            acr_use_managed_identity_creds=True,
            acr_user_managed_identity_id=identity_client_id,
            always_on=True,
            health_check_path="/health/ready",
        )

    def keep_only(self, settings: dict[str, str]) -> None:
        """Let the slot have these settings and no others."""
        self._write(settings)

    def swap(self) -> None:
        """Let the slot and the web app change places, once what is in the slot is warm."""
        from azure.mgmt.web import models

        with azure_errors(f"swapping {self.name} with its slot {SLOT}"):
            self._apps.begin_swap_slot_with_production(
                self._resource_group, self.name, models.CsmSlotEntity(target_slot=SLOT, preserve_vnet=True)
            ).result()

    def share(self) -> float:
        """Of the web app's own clients, what the slot gets."""
        apps = self._apps
        config = self._ask("reading the routing of", PRODUCTION, apps.get_configuration, apps.get_configuration_slot)
        rules = (config.properties.experiments and config.properties.experiments.ramp_up_rules) or []
        return sum(float(rule.reroute_percentage or 0) for rule in rules) / 100

    def divide(self, share: float, host: str = "") -> None:
        """Let the slot, which has this host, get a share of the web app's clients; 0 ends it."""
        from azure.mgmt.web import models

        rule = models.RampUpRule(name=SLOT, action_host_name=host, reroute_percentage=round(100 * share, 2))
        experiments = models.Experiments(ramp_up_rules=[rule] if share else [])
        config = models.SiteConfigResource(properties=models.SiteConfig(experiments=experiments))
        with azure_errors(f"dividing the clients of {self.name}"):
            self._apps.update_configuration(self._resource_group, self.name, config, **REPEATABLE)

    def start(self, slot: str) -> None:
        self._ask("starting", slot, self._apps.start, self._apps.start_slot)

    def stop(self, slot: str) -> None:
        self._ask("stopping", slot, self._apps.stop, self._apps.stop_slot)

    def logs(self, slot: str) -> list[str]:
        """The lines of its container's log that Azure keeps, oldest first."""
        parts = self._ask(
            "reading the log of",
            slot,
            self._apps.get_web_site_container_logs,
            self._apps.get_web_site_container_logs_slot,
        )
        return b"".join(parts or ()).decode(errors="replace").splitlines()

    def _write(self, settings: dict[str, str], **config: Any) -> None:
        from azure.mgmt.web import models

        pairs = [models.NameValuePair(name=name, value=value) for name, value in settings.items()]
        resource = models.SiteConfigResource(properties=models.SiteConfig(app_settings=pairs, **config))
        with azure_errors(f"configuring the slot {SLOT} of {self.name}"):
            self._apps.update_configuration_slot(self._resource_group, self.name, SLOT, resource, **REPEATABLE)

    @property
    def _apps(self) -> Any:
        return web_client(self._subscription_id).web_apps

    def _ask(self, doing: str, slot: str, of_app: Callable[..., T], of_slot: Callable[..., T]) -> T:
        where = f"{self.name}/{slot}" if slot else self.name
        missing = NotProvisioned(f"There is no web app {where} in {self._resource_group}.")
        with azure_errors(f"{doing} the web app {where}", missing):
            if slot:
                return of_slot(self._resource_group, self.name, slot)
            return of_app(self._resource_group, self.name)
