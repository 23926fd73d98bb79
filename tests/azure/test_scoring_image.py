import pytest

from infra.azure.scoring_image import pinned_image
from infra.errors import AccessDenied, ConfigurationError, ServiceUnavailable
from tests.azure.image_server import ImageServer

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


def test_a_digest_is_taken_at_its_word(bench):
    digest = "sha256:" + "a" * 64
    assert pinned_image(HOST, f"scoring@{digest}") == f"{HOST}/scoring@{digest}"
    assert bench.calls(host=HOST) == []


def test_an_image_that_is_not_there_is_a_wrong_setting(registry):
    with pytest.raises(ConfigurationError, match=r"no image crahcplatform\.azurecr\.io/scoring:nightly"):
        pinned_image(HOST, "scoring:nightly")


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
