import errno

import pytest
from azure.core.exceptions import ServiceRequestError

from infra.errors import DiskFull, PlatformError, ServiceUnavailable
from model.errors import ModelError
from model.faults import Fault
from tasks.framework.error_table import ERRORS, OUTCOMES, exit_code, is_transient, runbook, translate_errors


def test_every_error_has_an_exit_code_of_its_own():
    codes = [error.exit_code for error in ERRORS.values()] + [code for code in OUTCOMES.values() if code]
    assert len(codes) == len(set(codes))
    assert not {1, 2} & set(codes)


def test_every_error_says_what_to_do_next():
    for error in ERRORS.values():
        assert error.next_step not in (ModelError.next_step, PlatformError.next_step), error.__name__


@pytest.mark.parametrize(
    ("state_type", "state_name", "code"),
    [
        ("COMPLETED", "Completed", 0),
        ("COMPLETED", "NotPromoted", 3),
        ("COMPLETED", "Cached", 0),
        ("FAILED", "DataRejected", 10),
        ("FAILED", "Failed", 40),
        ("FAILED", "TimedOut", 40),
        ("CRASHED", "Crashed", 41),
        ("CANCELLED", "Cancelled", 42),
    ],
)
def test_a_final_state_maps_to_its_exit_code(state_type, state_name, code):
    assert exit_code(state_type, state_name) == code


def test_a_full_disk_is_told_as_such():
    with pytest.raises(DiskFull, match=r"last\.ckpt") as caught, translate_errors():
        raise OSError(errno.ENOSPC, "No space left on device", "last.ckpt")
    assert isinstance(caught.value.__cause__, OSError)


def test_a_shared_access_signature_is_not_quoted_by_the_cause():
    broken = ServiceRequestError("https://x.blob.core.windows.net/a?sv=1&sig=SECRET is unreachable")
    with pytest.raises(ServiceUnavailable) as caught, translate_errors():
        raise RuntimeError(f"Reading failed: {broken}") from broken
    assert "SECRET" not in Fault.of(caught.value).model_dump_json()


def test_other_errors_pass_untouched():
    with pytest.raises(KeyError), translate_errors():
        raise KeyError("x")


def test_only_faults_that_may_pass_are_transient():
    assert {name for name, error in ERRORS.items() if error.transient} == {
        "ServerUnreachable",
        "EndpointUnreachable",
        "DownloadFailed",
        "ServiceUnavailable",
        "QuotaExceeded",
        "Conflict",
        "TrainingInterrupted",
    }
    assert not is_transient(ValueError())


def test_the_runbook_anchor_is_the_class_name_in_kebab_case():
    assert runbook("NothingToRollBackTo") == "docs/runbook.md#nothing-to-roll-back-to"
