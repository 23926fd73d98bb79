"""What keeps the Prefect server answering on SQLite."""

import subprocess
import sys
from pathlib import Path

from infra.settings import PROJECT

REFUSED_THEN_BUSY = """
import sqlite3, sys, threading, time
from infra.local.platform.prefect_server import collect_garbage_in_a_thread

def connect():
    return sqlite3.connect(sys.argv[1], timeout=20, check_same_thread=False, isolation_level=None)

def refused():
    cursor = theirs.cursor()
    theirs.execute("BEGIN")
    theirs.execute("SELECT x FROM t").fetchall()
    ours.execute("INSERT INTO t VALUES (1)")
    try:
        cursor.execute("INSERT INTO t VALUES (2)")
    except sqlite3.OperationalError as error:
        assert str(error) == "database is locked"
    theirs.execute("ROLLBACK")
    return cursor

collect_garbage_in_a_thread()
ours, theirs = connect(), connect()
ours.execute("PRAGMA journal_mode = WAL")
ours.execute("CREATE TABLE t (x)")
cycle = [refused()]
cycle.append(cycle)
ours.execute("BEGIN IMMEDIATE")
del cycle
waits = threading.Thread(target=theirs.execute, args=["INSERT INTO t VALUES (3)"])
waits.start()
time.sleep(0.3)
kept = [[] for _ in range(100_000)]  # makes a collector that is on collect
ours.execute("COMMIT")
waits.join()
print(ours.execute("SELECT x FROM t").fetchall())
"""


def test_a_connection_that_waits_for_a_transaction_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    """With the collector in the same thread, SQLite gives up on the waiting one: after 20 s here, 60 in the server."""
    command = [sys.executable, "-c", REFUSED_THEN_BUSY, str(tmp_path / "some.db")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == "[(1,), (3,)]\n"
