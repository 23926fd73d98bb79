# The Prefect server and the workers of the cluster: Prefect with its parts for Azure and Kubernetes, nothing of ours.
# Build from the project's folder: podman build -f infra/docker/prefect.Dockerfile .
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /build
COPY constraints.txt ./
# hadolint ignore=DL3013
RUN python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install --no-cache-dir --constraint constraints.txt \
        prefect prefect-azure prefect-kubernetes

FROM ${BASE_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates tini \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DO_NOT_TRACK=1 \
    HOME=/tmp
COPY --from=build /opt/venv /opt/venv
ARG VERSION=0.0.0
ARG REVISION=unknown
# The repository's address, where the one who builds knows it.
ARG SOURCE=
# Podman takes a LABEL or an ENV from its cache although an argument in it has changed, unless a RUN before it differs.
RUN test -n "${VERSION}" && test -n "${REVISION}"
LABEL org.opencontainers.image.title="ahclassifier prefect" \
    org.opencontainers.image.description="Runs a Prefect server or a Kubernetes worker of Prefect." \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}"
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "-g", "--"]
CMD ["prefect", "version"]
