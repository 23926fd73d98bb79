"""The whole rehearsal, where there is a cluster to play it on."""

import pytest

from tests.kubernetes.rehearsal import rehearse
from tests.support.cluster import missing

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(3600)]


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_trainings_survive_everything_that_a_cluster_does_to_them(tmp_path):
    lines = rehearse(tmp_path)
    assert sum("as expected" in line for line in lines) == 5
