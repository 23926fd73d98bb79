# Runs flows and training: worker pods, training pods and Azure ML jobs. Torch brings CUDA's libraries along; the base
# tells NVIDIA's container runtime what the image needs. A base with Python 3.11 to 3.13 in apt is needed, no more.
# Build from the project's folder: podman build -f infra/docker/training.Dockerfile .
ARG BASE_IMAGE=nvidia/cuda:12.8.1-base-ubuntu24.04

FROM ${BASE_IMAGE} AS build
WORKDIR /build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml constraints.txt ./
# Only what the extra asks for: without the packages' folders the project itself is a distribution with the command `ahc`.
RUN sed -i '/^readme = /d' pyproject.toml \
    && python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install --no-cache-dir --constraint constraints.txt ".[azure]"
COPY pyproject.toml prefect.yaml constraints.txt /opt/ahclassifier/
COPY flows /opt/ahclassifier/flows
COPY tasks /opt/ahclassifier/tasks
COPY model /opt/ahclassifier/model
COPY infra /opt/ahclassifier/infra
COPY deployments /opt/ahclassifier/deployments
RUN /opt/venv/bin/python -m compileall -q /opt/ahclassifier

FROM ${BASE_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 tini \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/ahclassifier \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1 \
    HOME=/tmp \
    AHC_HOME=/tmp/ahc \
    PREFECT_HOME=/tmp/prefect
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/ahclassifier /opt/ahclassifier
WORKDIR /opt/ahclassifier
ARG VERSION=0.0.0
ARG REVISION=unknown
# The repository's address, where the one who builds knows it.
ARG SOURCE=
# Podman takes a LABEL or an ENV from its cache although an argument in it has changed, unless a RUN before it differs.
RUN test -n "${VERSION}" && test -n "${REVISION}"
LABEL org.opencontainers.image.title="ahclassifier training" \
    org.opencontainers.image.description="Runs the flows and the training of an image classifier." \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}"
ENV AHC_VERSION=${VERSION} \
    AHC_REVISION=${REVISION}
USER 10001:10001
STOPSIGNAL SIGTERM
# An init that runs what follows: Prefect's Kubernetes worker gives its command as arguments. A pod's signals reach that
# process alone: it stops those that it started once the checkpoint is written.
ENTRYPOINT ["tini", "--"]
CMD ["ahc", "--help"]
