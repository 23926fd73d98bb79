"""Sample data sets in the platform's storage: whoever asks first uploads them, all others only read."""

import pytest

from infra.backend import backend
from infra.errors import ServiceUnavailable
from model.data.sources import list_source, read_bytes
from tests.support.pictures import write_tree

pytestmark = pytest.mark.azure


@pytest.fixture
def fetched(monkeypatch, tmp_path):
    """A few images in place of the real hundreds; counts who asks for them."""
    write_tree(tmp_path / "sample", {"cat": 2, "dog": 2})
    (tmp_path / "sample" / ".sample.json").write_text("{}")
    asked = []

    def fetch(name, _):
        asked.append(name)
        return tmp_path / "sample"

    monkeypatch.setattr("infra.azure.storage.samples.fetch", fetch)
    return asked


def test_a_sample_is_uploaded_once_and_is_a_source_for_every_pod(bench, cloud, fetched, tmp_path):
    url = backend(cloud).samples("food")
    assert backend(cloud.model_copy(update={"home": tmp_path / "other pod"})).samples("food") == url
    assert fetched == ["food"]
    listing = list_source(url)
    assert [image.path for image in listing.images] == ["cat/000.jpg", "cat/001.jpg", "dog/000.jpg", "dog/001.jpg"]
    assert listing.overlooked == []
    assert read_bytes(url, "cat/000.jpg") == (tmp_path / "sample" / "cat" / "000.jpg").read_bytes()


def test_an_upload_that_broke_off_is_done_again(bench, cloud, fetched, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    bench.fault("outage", host="blob.core", method="PUT", path="dog/001")
    with pytest.raises(ServiceUnavailable, match="sample data set food"):
        backend(cloud).samples("food")
    bench.clear_faults()
    url = backend(cloud).samples("food")
    assert fetched == ["food", "food"]
    assert len(list_source(url).images) == 4


def test_on_one_machine_a_sample_stays_a_folder(tmp_path, monkeypatch):
    from infra.settings import Settings

    monkeypatch.setattr("infra.local.backend.fetch", lambda name, directory: directory / name)
    settings = Settings(home=tmp_path)
    assert backend(settings).samples("food") == str(tmp_path / "samples" / "food")
