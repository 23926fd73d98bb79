"""What a supervisor's errors are to who asked it."""

import asyncio
import json

import pytest

from infra.errors import CandidateFailed, NothingToRollBackTo, PlatformError
from infra.local.endpoint.control_socket import ControlServer, ask, error_in


@pytest.fixture
def control(tmp_path):
    return tmp_path / "control"


def answer(control, command):
    """Serve one command, and ask for it."""

    async def served():
        server = ControlServer(control, {"work": command})
        await server.start()
        try:
            return await asyncio.to_thread(ask, control, "work", seconds=5)
        finally:
            await server.close()

    return asyncio.run(served())


def test_what_a_command_answers_is_the_answer(control):
    async def work():
        return {"port": 1}

    assert answer(control, work) == {"port": 1}


def test_an_error_of_the_supervisor_is_the_same_here(control):
    async def work():
        raise CandidateFailed("It ended.", process_exit_code=16, next_step="Read the log.")

    with pytest.raises(CandidateFailed, match="It ended") as caught:
        answer(control, work)
    assert (caught.value.process_exit_code, caught.value.next_step) == (16, "Read the log.")


def test_a_mistake_of_the_supervisor_is_an_error_of_the_platform(control):
    async def work():
        raise KeyError("handle")

    with pytest.raises(PlatformError, match="The supervisor failed: KeyError"):
        answer(control, work)


def test_a_supervisor_that_was_started_by_an_older_version_is_understood():
    line = '{"ok": false, "error": "CandidateFailed", "message": "It ended.", "process_exit_code": 16}'
    error = error_in(json.loads(line))
    assert isinstance(error, CandidateFailed)
    assert (str(error), error.process_exit_code) == ("It ended.", 16)
    line = '{"ok": false, "error": "NothingToRollBackTo", "message": "None.", "process_exit_code": null}'
    assert isinstance(error_in(json.loads(line)), NothingToRollBackTo)
