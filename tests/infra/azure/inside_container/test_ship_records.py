"""Scoring records from a container's spool to the data lake, on the bench and Azurite."""

import json
import logging
import subprocess
import sys
import threading

import fsspec
import pyarrow.dataset
import pytest

from flows.scoring_records import scoring_records
from infra.azure.inside_container.ship_records import ship_finished, ship_records
from infra.azure.storage.blobs import blob_service
from infra.backend import release_target
from infra.errors import ConfigurationError
from infra.settings import PROJECT, get_settings
from tests.conftest import settings_environment
from tests.support.local_endpoint import eventually
from tests.tasks.training.test_metrics_to_lake import record

pytestmark = pytest.mark.azure
URL = "https://stahctest.blob.core.windows.net/records"
BLOBS = r"blob\.core\.windows\.net"
KILLED_HALF_WAY = f"""
import os, pathlib, sys
import infra.azure.inside_container.ship_records
pathlib.Path.unlink = lambda *_, **__: os._exit(9)
infra.azure.inside_container.ship_records.ship_finished(pathlib.Path(sys.argv[1]), "{URL}")
"""


@pytest.fixture
def spool(tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("infra.azure.storage.blobs.blob_options", lambda: {"retry_total": 0})


def leave(spool, segment, *numbers):
    (spool / segment).write_text("".join(json.dumps(record(number)) + "\n" for number in numbers))


def arrived():
    return sorted(blob.name for blob in blob_service("stahctest").get_container_client("records").list_blobs())


def test_finished_segments_are_uploaded_under_their_names_and_removed(bench, cloud, spool):
    leave(spool, "test.1.jsonl", 1)
    leave(spool, "test.2.jsonl.part", 2)
    assert ship_finished(spool, URL) == 1
    assert arrived() == ["incoming/test.1.jsonl"]
    assert [path.name for path in spool.iterdir()] == ["test.2.jsonl.part"]


def test_an_outage_loses_nothing_and_is_told_once(bench, cloud, spool, quick, caplog):
    leave(spool, "test.1.jsonl", 1)
    bench.fault("outage", host=BLOBS)
    stopped = threading.Event()
    quickly = {"images": 0, "stopped": stopped, "every": 0.05}
    thread = threading.Thread(target=ship_records, args=(spool, URL, "test"), kwargs=quickly)
    with caplog.at_level(logging.WARNING, logger="ahc.records"):
        thread.start()
        eventually(lambda: len(bench.calls(host="stahctest", status=503)) >= 3)
        assert (spool / "test.1.jsonl").exists()
        bench.clear_faults()
        eventually(lambda: not list(spool.iterdir()))
    leave(spool, "test.2.jsonl", 2)
    stopped.set()
    thread.join(10)
    assert not thread.is_alive()
    assert arrived() == ["incoming/test.1.jsonl", "incoming/test.2.jsonl"]
    assert len(caplog.records) == 1


def test_a_segment_whose_sender_was_killed_before_it_removed_it_counts_once(bench, cloud, spool, prefect_server):
    leave(spool, "test.1.jsonl", 1, 2)
    ended = subprocess.run([sys.executable, "-c", KILLED_HALF_WAY, str(spool)], cwd=PROJECT, check=False)
    assert ended.returncode == 9
    assert arrived() == ["incoming/test.1.jsonl"]
    with working_on(cloud) as collect:
        assert collect() == 2
        # The next container finds it still in the spool.
        assert ship_finished(spool, URL) == 1
        assert collect() == 2
        store = release_target("test", cloud).records_store()
    files, path = fsspec.core.url_to_fs(store)
    frame = pyarrow.dataset.dataset(f"{path}/scoring_records", filesystem=files, partitioning="hive").to_table()
    assert sorted(frame["request_id"].to_pylist()) == ["request-1", "request-2"]
    assert set(map(str, frame["date"].to_pylist())) == {"2026-11-24"}
    assert not [name for name in arrived() if name.startswith("incoming/")]


class working_on:  # noqa: N801 - reads as a sentence
    """Flows of this process work on the cloud."""

    def __init__(self, settings):
        self._settings = settings

    def __enter__(self):
        self._patch = pytest.MonkeyPatch()
        for name, value in settings_environment(self._settings).items():
            self._patch.setenv(name, value)
        get_settings.cache_clear()
        return lambda: scoring_records("test").records

    def __exit__(self, *_):
        self._patch.undo()
        get_settings.cache_clear()


@pytest.mark.parametrize("url", ["", "abfs://records@x.dfs.core.windows.net", "https://x.blob.core.windows.net/a/b"])
def test_a_url_that_is_no_container_is_named(spool, url):
    leave(spool, "test.1.jsonl", 1)
    with pytest.raises(ConfigurationError, match="no blob container"):
        ship_finished(spool, url)
