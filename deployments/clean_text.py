"""Text of others as text alone: no terminal sequences, no characters that XML or a build agent chokes on."""

import re
from typing import Final

_SEQUENCES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_NOT_IN_XML: Final = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: str) -> str:
    """Without colours and cursor moves; other control characters and lone surrogates become `�`."""
    return _NOT_IN_XML.sub("\ufffd", _SEQUENCES.sub("", text))
