"""Images built by the platform's registry, and what can go wrong there."""

import gzip
import io
import tarfile

import pytest

from infra.azure.container_images import builds as image_builds
from infra.azure.container_images.builds import RegistryBuilds
from infra.container_images import ImageSource
from infra.errors import AccessDenied, ImageBuildFailed, NotProvisioned, ServiceUnavailable
from infra.settings import PROJECT
from tests.support.azure.bench import calls

pytestmark = pytest.mark.azure


@pytest.fixture
def builds(bench, cloud, monkeypatch):
    monkeypatch.setattr(image_builds, "POLL_SECONDS", 0.05)
    return RegistryBuilds(cloud)


@pytest.fixture
def source():
    return ImageSource("scoring")


def scheduled(bench) -> int:
    return len([call for call in calls(bench, "POST", url="scheduleRun") if call["status"] == 200])


def test_an_image_is_built_with_its_tags_and_known_by_its_digest(bench, builds, source):
    told = []
    built = builds.build(source, told.append)
    assert built.built
    assert built.reference.startswith("crahcplatform.azurecr.io/scoring@sha256:")
    [call] = calls(bench, "POST", url="scheduleRun")
    for tag in source.tags:
        assert f'"scoring:{tag}"' in str(call["body"]).replace("'", '"')
    assert any("Successfully built" in line for line in told)


def test_the_same_sources_are_not_built_twice_and_others_are(bench, builds, source):
    first = builds.build(source, print)
    again = builds.build(ImageSource("scoring"), print)
    assert (again.reference, again.built) == (first.reference, False)
    assert scheduled(bench) == 1
    assert builds.build(ImageSource("scoring", base="mirror/python:3.12"), print).built
    # `stable` is what was built last: what was there before the last build is built anew.
    assert builds.build(source, print).built
    assert scheduled(bench) == 3


def test_a_failed_build_tells_the_last_lines_of_its_log(bench, builds, source):
    bench.lifecycle("acr-run", plan=["Queued", "Running", "Failed"], logs="RUN pip\nNo matching distribution\n")
    with pytest.raises(ImageBuildFailed, match="ended as Failed") as caught:
        builds.build(source, print)
    assert "No matching distribution" in str(caught.value)


def test_a_build_of_a_run_that_was_killed_is_waited_for_and_taken(bench, builds, source):
    builds._schedule(source)
    taken = builds.build(source, print)
    assert not taken.built
    assert scheduled(bench) == 1


def test_an_answer_that_was_lost_leads_to_no_second_build(bench, builds, source):
    bench.fault(reset="after", path="scheduleRun")
    with pytest.raises(ServiceUnavailable):
        builds.build(source, print)
    assert not builds.build(source, print).built
    assert scheduled(bench) <= 1


def test_throttling_and_a_short_outage_are_waited_out(bench, builds, source):
    bench.fault("throttle", path="scheduleRun")
    bench.fault(method="GET", path="/runs/", status=503, times=2)
    assert builds.build(source, print).built


def test_a_lasting_outage_and_a_missing_role_are_told_as_what_they_are(bench, builds, source):
    bench.fault("outage", path="listBuildSourceUploadUrl")
    with pytest.raises(ServiceUnavailable, match="scoring"):
        builds.build(source, print)
    bench.clear_faults()
    bench.fault("forbidden", path="scheduleRun", method="POST")
    with pytest.raises(AccessDenied):
        builds.build(source, print)


def test_a_registry_that_is_gone_is_named(bench, builds, source):
    bench.fault(path="/runs$", status=404, body={"error": {"code": "ResourceNotFound", "message": "gone"}})
    with pytest.raises(NotProvisioned, match="crahcplatform"):
        builds.build(source, print)


def test_the_archive_holds_what_the_dockerfile_copies_and_nothing_else(source):
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(source.archive()))) as archive:
        names = archive.getnames()
    assert "infra/docker/scoring.Dockerfile" in names
    assert "model/serving/service.py" in names
    assert "constraints.txt" in names
    assert not [name for name in names if name.startswith(("tests", "flows", ".")) or "__pycache__" in name]
    assert all((PROJECT / name).is_file() for name in names)
