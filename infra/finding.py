"""What a check found, and how to mend it."""

from typing import Literal

from model.values import Frozen

Severity = Literal["blocks", "warns"]


class Finding(Frozen):
    """The outcome of one check; `fix` says what to do where it is not ok."""

    name: str
    ok: bool
    severity: Severity
    detail: str
    fix: str = ""

    @property
    def sentence(self) -> str:
        return f"{self.name}: {self.detail.removesuffix('.')}. {self.fix}".strip()

    @property
    def blocks(self) -> bool:
        return not self.ok and self.severity == "blocks"
