"""Checks of a web app before a release to it."""

from functools import partial

from infra.azure.endpoint.app_service.web_app import PRODUCTION, SLOT, WebApp
from infra.azure.endpoint.environment import ScoringEnvironment
from infra.finding import Check, Finding


def web_app_checks(target: ScoringEnvironment, app: WebApp) -> list[Check]:
    """Of App Service: the web app and its slot; its plan can't be missing where they are there."""
    return [Check(f"{target.name}-slot", partial(_slot, app))]


def _slot(app: WebApp, name: str) -> Finding:
    for slot in (PRODUCTION, SLOT):
        app.place(slot)
    return Finding.of(name, f"{app.name} has the slot {SLOT}")
