"""What is due is released, whoever noticed it: an event, a message of Azure ML, or the clock."""

from tasks.framework.pipeline import pipeline
from tasks.reconciliation.azure_devops import tell_azure_devops
from tasks.reconciliation.reconcile import (
    Reconciled,
    end_notices,
    find_due,
    note_expired_releases,
    show_reconciliation,
    start_releases,
    take_notices,
)
from tasks.reconciliation.repair import Repaired, repair_environments

NOTHING = Repaired()


@pipeline("reconciliation", "reconciliation", keep_result=True)
def reconciliation(repair: bool = False) -> Reconciled:
    """Compare the registry with the environments and start each release that is due, once.

    Args:
        repair: First let registry and ledger say what the endpoints run, and start those that are stopped.
    """
    repaired = repair_environments() if repair else NOTHING
    taken = take_notices()
    note_expired_releases()
    due_releases = find_due()
    releases = start_releases(due_releases)
    tell_azure_devops(taken)
    end_notices(taken)
    return show_reconciliation(due_releases, releases, repaired)
