"""The organisation of Azure DevOps that its own tests have."""

from tests.infra.azure_devops.conftest import organisation

__all__ = ["organisation"]
