"""How far two models agree on the same images."""

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Final

from pydantic import Field

from model.values import Frozen

REFUSED: Final = "refused"


class Answer(Frozen):
    """What a model said of one image."""

    probabilities: Mapping[str, float] = Field(default={}, description="By label; empty where it was refused.")
    problem: str = Field(default="", description="Why it was refused, as the kind of problem.")

    @cached_property
    def label(self) -> str:
        """The most probable label; a refusal is an answer too."""
        if self.problem:
            return f"{REFUSED}: {self.problem}"
        return max(self.probabilities, key=lambda label: self.probabilities[label])

    @property
    def confidence(self) -> float:
        return self.probabilities.get(self.label, 0.0)


class Pair(Frozen):
    """Two answers to one image."""

    image: str = Field(description="Which one: a URL.")
    live: Answer
    candidate: Answer

    @property
    def agrees(self) -> bool:
        return self.live.label == self.candidate.label

    @property
    def distance(self) -> float:
        """Half of the absolute differences of all probabilities (total variation): 0 for the same, 1 at most."""
        ours, theirs = self.live.probabilities, self.candidate.probabilities
        return sum(abs(ours.get(label, 0.0) - theirs.get(label, 0.0)) for label in ours.keys() | theirs.keys()) / 2


class Agreement(Frozen):
    """Two models on some images, at least one."""

    pairs: tuple[Pair, ...] = Field(min_length=1)

    @property
    def share(self) -> float:
        """Of the images on which both name the same label."""
        return sum(pair.agrees for pair in self.pairs) / len(self.pairs)

    @property
    def distance(self) -> float:
        """Mean of the pairs'."""
        return sum(pair.distance for pair in self.pairs) / len(self.pairs)

    @cached_property
    def disagreements(self) -> tuple[Pair, ...]:
        """The pairs that name different labels, those that are furthest apart first."""
        return tuple(sorted((pair for pair in self.pairs if not pair.agrees), key=lambda pair: -pair.distance))

    def changes(self) -> list[tuple[str, str, int]]:
        """The live version's label, the candidate's, and on how many images so; the most frequent first."""
        counts = Counter((pair.live.label, pair.candidate.label) for pair in self.disagreements)
        return [(live, candidate, count) for (live, candidate), count in counts.most_common()]
