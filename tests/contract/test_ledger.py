"""What every release ledger promises; parametrised over where its files are."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys

import pytest

from infra.backend import backend
from infra.errors import LedgerBroken
from infra.ports import LiveModel
from infra.releases.ledger import last_word
from infra.settings import Settings
from tests.conftest import settings_environment

ONE = LiveModel(name="photos", version=1, digest="1" * 64)
TWO = LiveModel(name="photos", version=2, digest="2" * 64)


class FolderFiles:
    """What somebody can do to the files of the environment `test` on one machine."""

    def __init__(self, settings):
        self.settings = settings
        self._folder = settings.home / "ledger" / "test"

    def get(self, number):
        return (self._folder / f"{number:08d}.json").read_bytes()

    def put(self, name, content):
        (self._folder / name).write_bytes(content)

    def remove(self, number):
        (self._folder / f"{number:08d}.json").unlink()


class BlobFiles:
    """The same on Azure."""

    def __init__(self, settings):
        from infra.azure.access.resources import platform_resources
        from infra.azure.storage.blobs import blob_service

        self.settings = settings
        self._client = blob_service(platform_resources(settings).storage_account).get_container_client("data")

    def get(self, number):
        return self._client.download_blob(f"ledger/test/{number:08d}.json").readall()

    def put(self, name, content):
        self._client.upload_blob(f"ledger/test/{name}", content, overwrite=True)

    def remove(self, number):
        self._client.delete_blob(f"ledger/test/{number:08d}.json")


@pytest.fixture(params=["local", pytest.param("azure", marks=pytest.mark.azure)])
def files(request, tmp_path):
    if request.param == "local":
        return FolderFiles(Settings(home=tmp_path / "home"))
    if request.config.getoption("--azure") == "live":
        pytest.skip("writes to the ledger of the environment `test`")
    return BlobFiles(request.getfixturevalue("cloud"))


@pytest.fixture
def ledger(files):
    return backend(files.settings).ledger()


@pytest.fixture
def five(ledger):
    """Five events."""
    return [
        ledger.append("test", "switched", ONE if number % 2 else TWO, by="someone", run=f"run-{number}")
        for number in range(1, 6)
    ]


def writer(settings, run, count, *, size=10, limit=0):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.ledger_writer", run, str(count), str(size), str(limit)],
        env={**os.environ, **settings_environment(settings)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_an_environment_without_events_has_none(ledger, files):
    assert ledger.events("test") == []
    assert list(ledger.newest("test")) == []
    assert last_word(ledger, "test") is None


def test_events_are_read_as_they_were_written_oldest_first_each_chained_to_the_one_before(ledger):
    first = ledger.append("test", "started", TWO, by="ann", run="run-1")
    second = ledger.append(
        "test", "switched", TWO, by="ann", run="run-1", reason="größer\nbesser", details={"p95": 0.1, "seen": [1, None]}
    )
    assert ledger.events("test") == [first, second]
    assert list(ledger.newest("test")) == [second, first]
    assert [first.sequence, second.sequence] == [1, 2]
    assert [first.previous, second.previous] == ["", first.digest]
    assert (second.reason, second.details) == ("größer\nbesser", {"p95": 0.1, "seen": [1, None]})
    assert first.at.utcoffset() is not None


def test_each_environment_has_a_chain_of_its_own(ledger):
    ledger.append("test", "switched", ONE, by="ann", run="run")
    other = ledger.append("test-2", "switched", TWO, by="ann", run="run")
    assert (other.sequence, other.previous) == (1, "")
    assert [event.model for event in ledger.events("test")] == [ONE]


def test_a_figure_that_json_cannot_say_is_written_as_none(ledger):
    event = ledger.append("test", "aborted", ONE, by="canary", run="run", details={"p95": math.nan})
    assert event.details == {"p95": None}
    assert ledger.events("test") == [event]


def test_the_last_word_is_the_last_event_after_which_a_version_serves(ledger):
    ledger.append("test", "switched", ONE, by="ann", run="run-1")
    back = ledger.append("test", "rolled-back", TWO, by="watch", run="run-1")
    for kind in ("started", "rejected", "failed", "settled"):
        ledger.append("test", kind, ONE, by="ann", run="run-2")
    assert last_word(ledger, "test") == back


def edited(files):
    files.put("00000003.json", files.get(3).replace(b"someone", b"nobody!"))


def formatted(files):
    files.put("00000003.json", files.get(3).replace(b'"kind"', b'"by": "a",\n "kind"'))


def emptied(files):
    files.put("00000003.json", b"")


def removed(files):
    files.remove(3)


def reordered(files):
    third, fourth = files.get(3), files.get(4)
    files.put("00000003.json", fourth)
    files.put("00000004.json", third)


def inserted(files):
    files.put("00000003b.json", files.get(3))


def sealed_again(files):
    """Edited by somebody who knows how digests are made."""
    said = json.loads(files.get(3)) | {"by": "nobody"}
    del said["digest"]
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    said["digest"] = hashlib.sha256(canonical.encode()).hexdigest()
    files.put("00000003.json", (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode())


@pytest.mark.parametrize("tamper", [edited, formatted, emptied, removed, reordered, inserted, sealed_again])
def test_what_was_tampered_with_is_named_and_the_whole_events_are_still_told(ledger, files, five, tamper):
    tamper(files)
    with pytest.raises(LedgerBroken, match=r"00000003b?\.json") as broken:
        ledger.events("test")
    assert "test" in str(broken.value)
    history = ledger.history("test")
    assert history.faults
    whole = [event.sequence for event in history.events]
    assert {1, 2, 5} <= set(whole)
    assert all(event in five for event in history.events if event.by == "someone")


@pytest.mark.parametrize("tamper", [edited, removed, sealed_again])
def test_reading_the_newest_tells_as_soon_as_it_gets_there(ledger, files, five, tamper):
    tamper(files)
    newest = ledger.newest("test")
    assert [next(newest), next(newest)] == five[:2:-1]
    with pytest.raises(LedgerBroken, match=r"00000003\.json"):
        next(newest)


def test_an_event_made_up_at_the_end_is_told(ledger, files, five):
    files.put("00000006.json", files.get(5))
    with pytest.raises(LedgerBroken, match=r"00000006\.json"):
        ledger.events("test")


def test_the_first_event_cannot_be_taken_away_unseen(ledger, files, five):
    files.remove(1)
    with pytest.raises(LedgerBroken, match=r"00000001\.json is missing"):
        ledger.events("test")


def test_after_an_event_that_is_not_whole_nothing_is_written(ledger, files, five):
    files.put("00000005.json", files.get(5).replace(b"someone", b"nobody!"))
    with pytest.raises(LedgerBroken, match=r"00000005\.json"):
        ledger.append("test", "started", ONE, by="ann", run="run")
    assert len(ledger.history("test").events) == 4


def test_writers_at_once_all_get_their_events(ledger, files):
    writers = [writer(files.settings, f"run-{number}", 15) for number in range(3)]
    told = [[int(line) for line in process.communicate(timeout=240)[0].split()] for process in writers]
    assert [process.returncode for process in writers] == [0, 0, 0]
    events = ledger.events("test")
    assert len(events) == 45
    for number, numbers in enumerate(told):
        assert numbers == [event.sequence for event in events if event.run == f"run-{number}"]


def test_a_writer_that_is_killed_loses_nothing_it_was_told_and_the_next_one_goes_on(ledger, files):
    for run in range(3):
        with writer(files.settings, f"run-{run}", 100_000, size=100_000) as process:
            told = [int(process.stdout.readline()) for _ in range(5)]
            os.kill(process.pid, signal.SIGKILL)
        sequences = [event.sequence for event in ledger.events("test")]
        assert set(told) <= set(sequences)
    after = ledger.append("test", "settled", ONE, by="watch", run="after")
    assert after.sequence == sequences[-1] + 1


def test_a_writer_that_dies_in_the_middle_of_a_file_leaves_none_that_counts(tmp_path):
    settings = Settings(home=tmp_path / "home")
    ledger = backend(settings).ledger()
    first = ledger.append("test", "started", ONE, by="ann", run="run")

    with writer(settings, "run", 1, size=100_000, limit=5_000) as process:
        assert process.stdout.read() == ""
    assert process.returncode == -signal.SIGXFSZ
    assert ledger.events("test") == [first]
    assert ledger.append("test", "settled", ONE, by="ann", run="run").sequence == 2


@pytest.mark.azure
def test_an_event_whose_answer_got_lost_is_written_once(bench, cloud):
    ledger = backend(cloud).ledger()
    bench.fault(host=r"blob\.core\.windows\.net", method="PUT", path="00000001.json", reset="after", times=1)
    event = ledger.append("test", "started", ONE, by="ann", run="run")
    assert ledger.events("test") == [event]
