"""The YAML files of the project as typed values: environments, gates, trainers. Asks no service."""
