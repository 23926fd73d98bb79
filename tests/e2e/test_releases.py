"""Releases nobody fears, under constant load: the whole rehearsal, with nothing lost."""

import pytest

from tests.e2e.rehearsal import Rehearsal

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]


def test_every_scene_of_the_rehearsal_ends_as_it_should_and_no_request_is_lost(tmp_path):
    with Rehearsal(tmp_path / "rehearsal") as rehearsal:
        report = rehearsal.run()
    assert [f"{scene.title}: {scene.outcome}" for scene in report.scenes if not scene.as_expected] == []
    assert report.lost == []
    for name in ("test", "production"):
        assert report.clients[name].answers > 1000
