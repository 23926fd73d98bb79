"""The endpoint as a web app with a slot. Nothing of container groups."""
