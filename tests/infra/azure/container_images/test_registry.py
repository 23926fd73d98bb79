import pytest

from infra.azure.container_images.registry import pinned_image
from infra.errors import AccessDenied, ConfigurationError, ServiceUnavailable
from tests.support.azure.image_server import ImageServer

pytestmark = pytest.mark.azure
HOST = "crahcplatform.azurecr.io"


@pytest.fixture
def registry(bench):
    with ImageServer() as server:
        server.add("ml/scoring", "stable")
        bench.admin("backends", {HOST: server.address})
        yield server


def test_a_tag_becomes_the_digest_that_it_has_now(registry):
    [digest] = registry.digests("ml/scoring")
    assert pinned_image(HOST, "ml/scoring:stable") == f"{HOST}/ml/scoring@{digest}"


def test_a_digest_stays_what_it_is(registry):
    [digest] = registry.digests("ml/scoring")
    assert pinned_image(HOST, f"ml/scoring@{digest}") == f"{HOST}/ml/scoring@{digest}"


@pytest.mark.parametrize("image", ["scoring:nightly", "ml/scoring@sha256:" + "a" * 64])
def test_an_image_that_is_not_there_is_a_wrong_setting(registry, image):
    with pytest.raises(ConfigurationError, match=rf"no image {HOST}/{image}"):
        pinned_image(HOST, image)


def test_who_may_not_pull_is_told_the_role(registry):
    registry.refusal = 403
    with pytest.raises(AccessDenied) as caught:
        pinned_image(HOST, "scoring:stable")
    assert "AcrPull" in caught.value.next_step


@pytest.mark.parametrize("rule", [{"status": 503}, {"status": 429}, {"reset": True}])
def test_a_registry_that_does_not_answer_is_worth_another_try(registry, bench, rule):
    bench.fault(host=HOST, times=-1, **rule)
    with pytest.raises(ServiceUnavailable):
        pinned_image(HOST, "scoring:stable")
