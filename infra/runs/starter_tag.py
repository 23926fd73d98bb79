"""Who starts a run: told by the command that starts it, in a tag, since its process may run as anybody."""

import getpass
import os
from typing import Final

TAG: Final = "by:"
"""Leads the tag of a flow run that says who started it."""


def started_by_tags() -> list[str]:
    """What tags a flow run that this process starts."""
    return [f"{TAG}{user()}"]


def user() -> str:
    """The user of this process, by name; by number in a container that has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
