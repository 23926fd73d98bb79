"""An Azure DevOps project from a file: connections, environments, pipelines, approvals. Knows no flow."""
