"""Texts of any length as Azure tags, whose values may have 256 characters."""

from collections.abc import Mapping
from typing import Final

LIMIT: Final = 256
"""https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources#limitations"""
PART: Final = "~"


def split_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags whose long values go on in `name~2`, `name~3` and so on; the opposite of `join_tags`."""
    split = {}
    for name, value in tags.items():
        parts = [value[start : start + LIMIT] for start in range(0, len(value), LIMIT)] or [""]
        split[name] = parts[0]
        split |= {f"{name}{PART}{number}": part for number, part in enumerate(parts[1:], start=2)}
    return split


def join_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags with the parts of long values put together again."""
    joined = {name: value for name, value in tags.items() if PART not in name}
    for name in joined:
        number = 2
        while (part := tags.get(f"{name}{PART}{number}")) is not None:
            joined[name] += part
            number += 1
    return joined
