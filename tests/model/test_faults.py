"""A fault as a record: what of an error crosses to another process, run or machine."""

import pytest

from infra.errors import CandidateFailed, DiskFull, PlatformError, RequestRejected
from model.errors import GpuMemoryExhausted, ImageRejected, KnownError
from model.faults import Fault, known_errors

MORE_THAN_A_MESSAGE = {
    "CandidateFailed": {"process_exit_code": 16},
    "DevOpsRefused": {"status": 409},
    "ImageRejected": {"reason": "too-large"},
    "RequestRejected": {"status": 422, "kind": "image-rejected"},
    "TrainingJobFailed": {"process_exit_code": 1},
}


def over_there(fault: Fault) -> Fault:
    return Fault.model_validate_json(fault.model_dump_json())


@pytest.mark.parametrize("kind", known_errors().values(), ids=known_errors())
def test_every_known_error_is_the_same_elsewhere(kind: type[KnownError]) -> None:
    details = MORE_THAN_A_MESSAGE.get(kind.__name__, {})
    error = kind("What happened.", next_step="What to do.", **details)
    error.add_note("For a traceback here.")
    again = over_there(Fault.of(error)).error()
    assert type(again) is kind
    assert isinstance(again, KnownError)
    assert (str(again), again.exit_code, again.next_step) == ("What happened.", kind.exit_code, "What to do.")
    assert again.transient == kind.transient
    assert {key: value for key, value in vars(again).items() if key != "next_step"} == details
    assert over_there(Fault.of(again)) == Fault.of(error)


def test_every_known_error_that_takes_more_than_a_message_is_among_those_of_this_test() -> None:
    own = {name for name, kind in known_errors().items() if kind.__init__ is not KnownError.__init__}
    assert own == set(MORE_THAN_A_MESSAGE)


def test_a_root_of_the_errors_is_known_too() -> None:
    assert type(over_there(Fault.of(PlatformError("The supervisor failed."))).error()) is PlatformError


def test_a_record_says_what_is_behind_an_error_and_what_was_logged_before() -> None:
    error = DiskFull("No space left.")
    error.__cause__ = OSError(28, "No space left on device")
    fault = over_there(Fault.of(error, where="Train", evidence=("10:00:00 INFO    Epoch 1", "10:00:09 INFO    saved")))
    assert fault.cause == "OSError: [Errno 28] No space left on device"
    assert fault.where == "Train"
    assert fault.evidence[-1].endswith("saved")


def test_a_bug_stays_a_bug() -> None:
    fault = over_there(Fault.of(KeyError("size")))
    assert fault.kind is None
    assert (fault.exit_code, fault.next_step) == (1, "")
    with pytest.raises(RuntimeError, match="KeyError: 'size'"):
        raise fault.error()


def test_a_record_of_a_newer_version_is_read() -> None:
    fault = Fault.model_validate({"name": "OfTomorrow", "message": "What happened.", "exit_code": 99, "colour": "red"})
    assert str(fault.error()) == "OfTomorrow: What happened."


def test_an_exit_code_names_the_error_where_its_message_is_all_that_it_takes() -> None:
    fault = Fault.of_exit_code(18, "CUDA out of memory")
    assert fault is not None
    assert isinstance(fault.error(), GpuMemoryExhausted)
    assert fault.next_step == GpuMemoryExhausted.next_step
    assert Fault.of_exit_code(ImageRejected.exit_code, "") is None
    assert Fault.of_exit_code(1, "") is None


def test_details_are_read_again_as_attributes() -> None:
    error = over_there(Fault.of(RequestRejected("Too large.", status=413, kind="too-large"))).error()
    assert isinstance(error, RequestRejected)
    assert (error.status, error.kind) == (413, "too-large")
    candidate = over_there(Fault.of(CandidateFailed("It ended.", process_exit_code=None))).error()
    assert isinstance(candidate, CandidateFailed)
    assert candidate.process_exit_code is None
