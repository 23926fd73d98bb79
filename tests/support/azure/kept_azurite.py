"""Azurite without a start for each test: the bench starts this instead, which passes on to one that is kept.

An empty cloud for a test means an end of every Azurite and a start of new ones, 1.7 s of a core each. This program is
what the bench ends and starts: a forwarder, in front of one Azurite an account that lives as long as the test session,
and that it empties first. Standard library only, so that it is there in a moment.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from http.client import HTTPConnection
from pathlib import Path

VERSION = "2019-12-12"


def launcher(folder: Path, bench: Path) -> Path:
    """The program for AZURITE_BIN; what it keeps is noted in `folder`, see `end`."""
    path = folder / "azurite"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{__file__}" "{folder}" "{bench}" "$@"\n')
    path.chmod(0o755)
    return path


def end(folder: Path) -> None:
    """End every Azurite that was kept."""
    for note in folder.glob("*.json"):
        end_one(note)


def end_one(note: Path) -> None:
    with contextlib.suppress(OSError):  # it ended by itself, or there was none
        os.kill(json.loads(note.read_text())["pid"], signal.SIGKILL)


def main(folder: Path, bench: Path, arguments: list[str]) -> None:
    account, key = os.environ["AZURITE_ACCOUNTS"].split(":", 1)
    kept = emptied(folder, account, key) or started(folder, account, bench)
    with socket.create_server(("127.0.0.1", int(arguments[arguments.index("--blobPort") + 1])), backlog=128) as server:
        while True:
            client, _ = server.accept()
            threading.Thread(target=forward, args=(client, kept), daemon=True).start()


def emptied(folder: Path, account: str, key: str) -> int | None:
    """The port of the Azurite that is kept for this account, all of its containers removed; None without one."""
    try:
        port = int(json.loads((folder / f"{account}.json").read_text())["port"])
        for name in re.findall("<Name>(.+?)</Name>", asked(port, "GET", f"/{account}", key, comp="list")):
            asked(port, "DELETE", f"/{account}/{name}", key, restype="container")
    except OSError:
        return None
    return port


def asked(port: int, method: str, path: str, key: str, **query: str) -> str:
    account = path.split("/")[1]
    signed = {"sv": VERSION, "ss": "b", "srt": "sco", "sp": "rwdl", "se": "2100-01-01T00:00:00Z"}
    lines = (account, signed["sp"], signed["ss"], signed["srt"], "", signed["se"], "", "", signed["sv"], "")
    digest = hmac.digest(base64.b64decode(key), "\n".join(lines).encode(), hashlib.sha256)
    signature = base64.b64encode(digest).decode()
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, f"{path}?{urllib.parse.urlencode({**query, **signed, 'sig': signature})}")
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    if answer.status >= 300:
        raise OSError(f"{method} {path}: {answer.status} {content}")
    return content


def started(folder: Path, account: str, bench: Path) -> int:
    sys.path.insert(0, str(bench))
    from azure_bench.blobs import find_azurite

    end_one(folder / f"{account}.json")
    del os.environ["AZURITE_BIN"]  # this program
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*find_azurite(), "--silent", "--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence"]
    with (folder / f"{account}.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--blobHost", "127.0.0.1", "--blobPort", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (folder / f"{account}.json").write_text(json.dumps({"pid": process.pid, "port": port}))
    while process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return port
        time.sleep(0.05)
    raise SystemExit(f"Azurite ended: {(folder / f'{account}.log').read_text()}")


def forward(client: socket.socket, port: int) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as kept:
        back = threading.Thread(target=pump, args=(kept, client), daemon=True)
        back.start()
        pump(client, kept)
        back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
