"""The ARM templates, ready to be deployed."""

from typing import Any

from infra.ports import Frozen


class Composed(Frozen):
    """One deployment's template with its parameters."""

    template: dict[str, Any]
    parameters: dict[str, Any]
    location: str
