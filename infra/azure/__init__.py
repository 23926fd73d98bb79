"""The platform's ports on Azure. Imports are absolute here: `azure` is always the SDK."""
