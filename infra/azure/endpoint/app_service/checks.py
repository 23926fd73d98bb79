"""Checks of a web app before a release to it."""

from infra.azure.checks.release import Check
from infra.azure.endpoint.app_service.web_app import PRODUCTION, SLOT, WebApp
from infra.azure.endpoint.environment import ScoringEnvironment
from infra.finding import Finding


def web_app_checks(target: ScoringEnvironment, app: WebApp) -> dict[str, Check]:
    """Of App Service: the web app and its slot; its plan can't be missing where they are there."""
    return {f"{target.name}-slot": lambda: _slot(target.name, app)}


def _slot(name: str, app: WebApp) -> Finding:
    for slot in (PRODUCTION, SLOT):
        app.place(slot)
    return Finding(name=f"{name}-slot", ok=True, severity="blocks", detail=f"{app.name} has the slot {SLOT}")
