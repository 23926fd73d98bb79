"""The configuration of one scoring process; it comes as JSON on stdin: no key is in an argument or the environment."""

import json
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from model.values import Frozen

MEBIBYTE = 1024 * 1024


class ServingConfig(Frozen):
    """One bundle, its keys and the limits under which it is served."""

    bundle: Path = Field(description="Directory of the bundle to serve.")
    digest: str | None = Field(default=None, description="Digest that the bundle must have; any where it is missing.")
    name: str | None = Field(default=None, description="Name in the registry; the bundle's own where it is missing.")
    version: int = Field(default=0, ge=0, description="Version in the registry; 0 outside one.")
    keys: tuple[SecretStr, ...] = Field(
        min_length=1, max_length=2, description="Keys that give access; two at a time, so that they can be rotated."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=0, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    certificate: Path | None = Field(
        default=None,
        description="File with certificate and private key (PEM) for HTTPS; plain HTTP where it is missing. A renewed "
        "file is taken up while serving.",
    )
    handover_fd: int | None = Field(
        default=None, description="Unix socket over which a supervisor hands accepted connections to this process."
    )
    threads: int = Field(default=0, ge=0, le=256, description="Threads that decode and score; 0 means one a core.")
    waiting_images: int = Field(
        default=64, ge=1, description="Images that may wait or be scored at a time; more are answered with 503."
    )
    buffered_bytes: int = Field(
        default=256 * MEBIBYTE,
        ge=MEBIBYTE,
        description="Bytes of request bodies held at a time; more are answered 503.",
    )
    max_image_bytes: int = Field(default=20 * MEBIBYTE, ge=1024, description="Limit for one image.")
    max_batch_images: int = Field(default=32, ge=1, description="Limit for the files of one batch.")
    max_batch_bytes: int = Field(default=64 * MEBIBYTE, ge=1024, description="Limit for the body of one batch.")
    upload_seconds: float = Field(default=30, gt=0, description="Time a client has to send its headers and its body.")
    keep_alive_seconds: int = Field(default=75, ge=1, description="An idle connection is closed after this time.")
    environment: str = Field(
        default="local", pattern=r"^[a-z][a-z0-9-]{1,30}$", description="The release target, in spans and records."
    )
    platform: str = Field(default="", description="Version and commit of the platform, shown in /openapi.json.")
    correlation_id: str = Field(default="", description="Ties spans, logs and records to the run that released this.")
    spool: Path | None = Field(default=None, description="Folder for sampled scoring records; none are kept without.")
    sample_rate: float = Field(default=0, ge=0, le=1, description="Share of the scored requests that are recorded.")
    sample_images: int = Field(
        default=0, ge=0, le=1000, description="So many of the newest images that were recorded are kept in the spool."
    )
    spool_bytes: int = Field(
        default=64 * MEBIBYTE, ge=MEBIBYTE, description="Limit for records on disk; beyond, the oldest are dropped."
    )
    segment_seconds: float = Field(default=300, gt=0, description="A file of records is finished after so long.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    def to_json(self) -> str:
        """With the keys in the clear: for the pipe to the scoring process only."""
        content = self.model_dump(mode="json")
        return json.dumps({**content, "keys": [key.get_secret_value() for key in self.keys]})

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.certificate is not None and self.handover_fd is not None:
            raise ValueError("connections that a supervisor hands over are plain HTTP: no certificate with handover_fd")
        return self
