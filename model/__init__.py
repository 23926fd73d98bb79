"""The image classifier itself: data, network, training, evaluation, bundle and scoring service.

Pure: no Prefect, no Azure, no environment variables. What runs it where is decided in `tasks` and `flows`.
"""
