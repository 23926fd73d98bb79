"""Whether an endpoint, the registry and the release ledger say the same about what an environment runs.

The endpoint is right: it is what clients talk to. The other two are records, which a repair corrects.
"""

from typing import Final

from infra.ports import EndpointStatus, LiveModel, RegisteredModel
from infra.releases.ledger import ReleaseEvent

REPAIR: Final = "ahc run reconciliation -p repair=true"
"""Makes registry and ledger say what the endpoints run."""


def differences(status: EndpointStatus, last_event: ReleaseEvent | None, champion: RegisteredModel | None) -> list[str]:
    """Where the records of an environment say something else than its endpoint, each in one line.

    Args:
        status: What the endpoint itself reports.
        last_event: The ledger's last word (`infra.releases.ledger.last_word`).
        champion: What the registry names as this environment's champion.

    Returns:
        Nothing where all agree, and where the endpoint runs nothing that they could be compared with.
    """
    return [line for line in (ledger_difference(status, last_event), registry_difference(status, champion)) if line]


def ledger_difference(status: EndpointStatus, last_event: ReleaseEvent | None) -> str:
    """The line about the ledger; empty where it agrees."""
    if last_event is None:
        return _difference(status.live, None, "ledger", "tells of no release")
    return _difference(status.live, last_event.model, "ledger", "says that it runs")


def registry_difference(status: EndpointStatus, champion: RegisteredModel | None) -> str:
    """The line about the registry; empty where it agrees."""
    if champion is None:
        return _difference(status.live, None, "registry", "names no champion")
    return _difference(status.live, champion, "registry", "names as champion")


def _difference(live: LiveModel | None, recorded: LiveModel | RegisteredModel | None, where: str, says: str) -> str:
    if live is None or (recorded is not None and recorded.digest == live.digest):
        return ""
    record = f"{says} {_label(recorded)}" if recorded else says
    fix = f"The endpoint is right; `{REPAIR}` corrects the {where}."
    return f"the endpoint runs {_label(live)}, the {where} {record}. {fix}"


def _label(model: LiveModel | RegisteredModel) -> str:
    return f"{model.label} ({model.digest[:12]})"
