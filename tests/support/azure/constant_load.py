"""A light constant load on an endpoint of the bench: every request is noted, and so is every one that is lost."""

import threading
from collections import Counter
from typing import Self

from pydantic import SecretStr

from infra.errors import PlatformError
from infra.releases.scoring_client import ScoringClient
from tests.support.bundles import colour_image

IMAGE = colour_image("red")
PAUSE_SECONDS = 0.05


class ConstantLoad:
    """One client that scores an image, pauses, and scores again, from the first line of its block to the last."""

    def __init__(self, url: str, key: SecretStr) -> None:
        self.lost: list[str] = []
        self.versions: Counter[int] = Counter()
        self._url, self._key = url, key
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="constant-load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with ScoringClient(self._url, self._key) as client:
            while not self._stop.wait(PAUSE_SECONDS):
                try:
                    self.versions[int(client.score(IMAGE)["model"]["version"])] += 1
                except PlatformError as error:
                    self.lost.append(str(error))
