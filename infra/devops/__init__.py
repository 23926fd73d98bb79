"""Azure DevOps: what a project there must have, who decided in it, and how it is told about a new version."""
