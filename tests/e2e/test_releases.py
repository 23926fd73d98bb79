"""Releases nobody fears, under constant load: the whole rehearsal, with nothing lost."""

import pytest

from tests.e2e.rehearsal import STAGES, Rehearsal

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    # Clients that leave the cores to the releases, and to the tests beside these.
    with Rehearsal(tmp_path_factory.mktemp("releases") / "rehearsal", pause=0.2) as rehearsal:
        return rehearsal.run()


def test_every_scene_ends_as_it_should(report):
    unexpected = [f"{scene.title}: {scene.outcome}" for scene in report.scenes if not scene.as_expected]
    assert [scene for scene in unexpected if "is killed after" not in scene] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_release_that_is_killed_after_a_step_goes_on_and_tells_each_step_once(report, stage):
    [scene] = [scene for scene in report.scenes if scene.title.endswith(f"is killed after: {stage}")]
    assert scene.as_expected, scene.outcome


@pytest.mark.parametrize("environment", ["test", "production"])
def test_no_request_is_lost(report, environment):
    load = report.clients[environment]
    assert load.failures == []
    assert load.answers > 1000
