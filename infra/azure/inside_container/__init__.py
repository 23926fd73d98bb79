"""The program of the scoring container. Never imported by what deploys it."""
