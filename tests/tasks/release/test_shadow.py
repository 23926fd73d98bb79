"""A candidate is shadowed on images that a real endpoint kept of real requests."""

import subprocess
import sys
from hashlib import sha256

import pytest
import yaml
from prefect.artifacts import Artifact

import tasks.release.shadow as module
from infra.backend import backend, release_target
from infra.config.environments import endpoint_key
from infra.errors import CandidateFailed, EndpointUnreachable
from infra.ports import LiveModel
from infra.releases.scoring_client import ScoringClient
from infra.settings import PROJECT, get_settings
from model.bundle.read import open_bundle
from tasks.framework.pipeline import pipeline
from tasks.release.shadow import shadow
from tasks.release.smoke_test import smoke_test
from tasks.release.targets import environment_file
from tests.support.bundles import colour_image, make_bundle
from tests.support.load import Load
from tests.support.local_endpoint import eventually

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("prefect_server")]
ALWAYS_BLUE = 1000.0
KEPT = 10
SHADOW_OF = """
import os, signal, sys
from infra.ports import Candidate
from tasks.release import shadow as module
from tests.tasks.release.test_shadow import shadowed
calls = []
work = getattr(module, sys.argv[1])
def killed(*args, **kwargs):
    calls.append(args)
    if len(calls) >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return work(*args, **kwargs)
setattr(module, sys.argv[1], killed)
shadowed(Candidate.model_validate_json(sys.argv[3]))
"""


@pipeline("shadow-test", "shadow-test")
def shadowed(candidate):
    return shadow(candidate, environment_file("test"))


@pipeline("smoke-test", "smoke-test")
def smoke_tested(candidate, bundle):
    return smoke_test(candidate, bundle, environment_file("test"))


class World:
    """An environment `test` that keeps the images of its requests, in a home of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.images = folder / "home" / "lake" / "incoming" / "images" / "test"

    @property
    def endpoint(self):
        return release_target("test", get_settings()).endpoint()

    def gate(self, **gate):
        described = {"name": "test", "description": "For tests.", "port_offset": 1, "scoring_threads": 2}
        described |= {"sample_rate": 1.0, "sample_images": KEPT, "gates": {"shadow": {"images": KEPT, **gate}}}
        (self.folder / "environments" / "test.yaml").write_text(yaml.safe_dump(described))

    def deploy(self, version, **bundle):
        folder = self.folder / f"v{version}"
        if not folder.exists():
            make_bundle(folder, code=f"version {version}", **bundle)
        model = LiveModel(name="colours", version=version, digest=open_bundle(folder).digest)
        return self.endpoint.deploy(folder, model)

    def go_live(self):
        self.endpoint.switch(self.deploy(1))

    def score(self, *images):
        key = release_target("test", get_settings()).secrets().get(endpoint_key("test"))
        with ScoringClient(self.endpoint.status().url, key) as client:
            for image in images:
                client.score(image)

    def kept(self):
        return sorted(path.name for path in self.images.glob("*"))

    def client(self):
        """Three blue photos of ten, as a client sends them."""
        images = [colour_image(_shade(number), size=(200, 150)) for number in range(KEPT)]
        self.score(*images)
        eventually(lambda: len(self.kept()) == KEPT)

    def told(self):
        return [(event.kind, event.model.version) for event in backend(get_settings()).ledger().events("test")]


def _shade(number):
    return (10 + 9 * number, 40, 220) if number < 3 else (220, 10 + 9 * number, 40)


@pytest.fixture
def world(prefect_server, tmp_path, monkeypatch):
    monkeypatch.setenv("AHC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AHC_ENVIRONMENTS", str(tmp_path / "environments"))
    (tmp_path / "environments").mkdir()
    get_settings.cache_clear()
    world = World(tmp_path)
    world.gate()
    yield world
    world.endpoint.stop()
    get_settings.cache_clear()


def report():
    return Artifact.get("shadow-test")


def test_a_candidate_that_answers_alike_passes_and_its_replay_is_no_client(world):
    world.go_live()
    world.client()
    before = {path.name: path.stat().st_mtime_ns for path in world.images.iterdir()}
    found = shadowed(world.deploy(2))
    assert (found.images, found.agreement, found.distance, found.warning) == (KEPT, 1.0, 0.0, "")
    assert report().description == "Shadow in test: agrees on 100.0% of 10 images"
    assert world.endpoint.status().live.version == 1
    assert world.told() == []
    world.endpoint.stop()  # with the last records written
    assert {path.name: path.stat().st_mtime_ns for path in world.images.iterdir()} == before


def test_one_that_disagrees_is_discarded_and_told_with_its_images(world):
    world.go_live()
    world.client()
    candidate = world.deploy(2, bias=ALWAYS_BLUE)
    state = shadowed(candidate, return_state=True)
    assert state.name == "ShadowDisagrees"
    assert "agrees with the live version of test on 30.0% of 10 images; at least 90.0% is wanted" in state.message
    with pytest.raises(CandidateFailed):
        world.endpoint.switch(candidate)
    assert world.endpoint.status().live.version == 1
    assert world.told() == [("aborted", 2)]
    [event] = backend(get_settings()).ledger().events("test")
    assert (event.by, event.details["agreement"], event.details["images"]) == ("shadow", 0.3, 10)
    assert report().description == "Shadow in test: disagrees on 30.0% of 10 images"
    assert "| red | blue | 7 |" in report().data
    sheet = Artifact.get("shadow-images-test")
    assert sheet.description.startswith("7 of 7 images")
    assert sheet.data.startswith("data:image/png;base64,")


def test_one_that_disagrees_within_the_limit_passes_and_is_shown(world):
    world.gate(min_agreement=0.3)
    world.go_live()
    world.client()
    found = shadowed(world.deploy(2, bias=ALWAYS_BLUE))
    assert found.agreement == 0.3
    assert 0.6 < found.distance < 0.8
    assert "| red | blue | 7 |" in report().data


def test_without_images_or_a_live_version_it_passes_with_a_warning_that_names_the_keys(world):
    candidate = world.deploy(2)
    found = shadowed(candidate)
    assert found.images == 0
    assert "No image of test is kept" in found.warning
    for text in ("`sample_images`", "`sample_rate`", "Warning: nothing was compared"):
        assert text in report().data
    world.images.mkdir(parents=True)
    image = colour_image("red")
    (world.images / sha256(image).hexdigest()).write_bytes(image)
    assert "Nothing is live that answers" in shadowed(candidate).warning
    world.go_live()
    assert shadowed(world.deploy(2)).images == 1


def test_an_image_that_is_damaged_or_gone_is_left_out(world):
    world.go_live()
    world.client()
    damaged = world.images / world.kept()[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    found = shadowed(world.deploy(2))
    assert (found.images, found.agreement) == (KEPT - 1, 1.0)
    assert "no more are kept" in report().data


def test_clients_of_the_live_version_notice_nothing(world):
    world.go_live()
    world.client()
    candidate = world.deploy(2, bias=ALWAYS_BLUE)
    key = release_target("test", get_settings()).secrets().get(endpoint_key("test"))
    with Load(int(world.endpoint.status().url.rpartition(":")[2]), key.get_secret_value()) as load:
        state = shadowed(candidate, return_state=True)
    assert state.name == "ShadowDisagrees"
    assert load.failures == []
    assert load.answers > 20
    assert {version for versions, _ in load.connections for version in versions} == {1}


def test_images_that_newer_ones_replace_meanwhile_are_compared_all_the_same(world, monkeypatch):
    world.go_live()
    world.client()
    candidate = world.deploy(2, bias=ALWAYS_BLUE)
    replay = module._replay

    def replaced(*args):
        for path in world.images.iterdir():
            path.unlink()
        return replay(*args)

    monkeypatch.setattr(module, "_replay", replaced)
    assert "30.0% of 10 images" in shadowed(candidate, return_state=True).message
    assert Artifact.get("shadow-images-test").description.startswith("7 of 7 images")


def test_no_more_images_are_held_than_fit_the_memory(world, monkeypatch):
    world.go_live()
    world.client()
    sizes = [path.stat().st_size for path in world.images.iterdir()]
    monkeypatch.setattr(module, "FETCHED_BYTES", sum(sorted(sizes)[:5]) - 1)
    assert 0 < shadowed(world.deploy(2)).images < 5


def test_a_candidate_that_refuses_what_the_live_version_scores_disagrees(world, monkeypatch):
    world.go_live()
    world.client()
    candidate = world.deploy(2)
    refusing = _refuses_from(candidate.url)
    monkeypatch.setattr(module, "_answer", refusing)
    assert shadowed(candidate, return_state=True).name == "ShadowDisagrees"
    assert "| red | refused: broken-image | 7 |" in report().data


def _refuses_from(url):
    answer = module._answer
    return lambda client, image, trace: answer(client, b"no image" if client._url == url else image, trace)


@pytest.mark.parametrize(("where", "times"), [("_answer", 7), ("note", 1)])
def test_killed_in_the_middle_it_ends_likewise_when_it_is_run_again(world, where, times):
    world.go_live()
    world.client()
    candidate = world.deploy(2, bias=ALWAYS_BLUE)
    command = [sys.executable, "-c", SHADOW_OF, where, str(times), candidate.model_dump_json()]
    assert subprocess.run(command, cwd=PROJECT, check=False).returncode == -9
    assert world.told() == []
    assert world.endpoint.status().live.version == 1
    # As a rerun of the release does, whose steps all look at the world.
    state = shadowed(world.deploy(2), return_state=True)
    assert state.name == "ShadowDisagrees", state.message
    assert world.told() == [("aborted", 2)]
    assert world.endpoint.status().live.version == 1
    world.score(colour_image("red"))


def test_a_candidate_that_is_gone_is_a_fault_and_no_disagreement(world, monkeypatch):
    world.go_live()
    world.client()
    candidate = world.deploy(2)
    world.endpoint.discard(candidate)
    with pytest.raises(EndpointUnreachable):
        shadow.fn(candidate, environment_file("test"))
    assert world.told() == []


def test_golden_images_of_a_smoke_test_are_not_taken_for_those_of_clients(world):
    candidate = world.deploy(2)
    smoke_tested(candidate, str(world.folder / "v2"))
    world.endpoint.switch(candidate)
    world.score(colour_image("red"))
    eventually(lambda: len(world.kept()) > 0)
    assert len(world.kept()) == 1
