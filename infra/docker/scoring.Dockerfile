# The scoring container: one bundle, fetched at its start, behind the scoring API. No torch, no Prefect, no root.
# Build from the project's folder: podman build -f infra/docker/scoring.Dockerfile .
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /build
# For `strip`.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml constraints.txt ./
# Only what the extra asks for: without the packages' folders the project itself is an empty distribution.
RUN sed -i '/^readme = /d' pyproject.toml \
    && python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install --no-cache-dir --constraint constraints.txt ".[container]"
# What serving never loads: ONNX Runtime's tools for converting, its library for C programs, NumPy's tools
# for building extensions, tests, type hints of compiled code.
RUN find /opt/venv/lib/python3*/site-packages/onnxruntime -mindepth 1 -maxdepth 2 \
        \( -name backend -o -name datasets -o -name quantization -o -name tools -o -name transformers \
        -o -name "libonnxruntime.so*" \) -prune -exec rm -rf {} + \
    && find /opt/venv/lib/python3*/site-packages/numpy -maxdepth 1 \( -name distutils -o -name f2py \) -exec rm -rf {} + \
    && find /opt/venv -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
    && find /opt/venv -name "*.pyi" -delete
# Packages with large debug symbols; those that bring libraries of others with them (NumPy, Pillow) don't survive it.
RUN find /opt/venv -regex ".*/\(cryptography\|httptools\|uvloop\|yaml\)/.*\.so" -exec strip --strip-unneeded {} +
COPY infra /opt/scoring/infra
COPY model /opt/scoring/model
RUN /opt/venv/bin/python -m compileall -q /opt/scoring

FROM ${BASE_IMAGE}
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/scoring \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    AHC_HOME=/tmp/ahc
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/scoring /opt/scoring
WORKDIR /opt/scoring
ARG VERSION=0.0.0
ARG REVISION=unknown
# The repository's address, where the one who builds knows it.
ARG SOURCE=
# Podman takes a LABEL or an ENV from its cache although an argument in it has changed, unless a RUN before it differs.
RUN test -n "${VERSION}" && test -n "${REVISION}"
LABEL org.opencontainers.image.title="ahclassifier scoring" \
    org.opencontainers.image.description="Serves one bundle of an image classifier over HTTP." \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}"
ENV AHC_VERSION=${VERSION} \
    AHC_REVISION=${REVISION}
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# Starting may take as long as the container waits for Azure.
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-m", "infra.azure.inside_container.health"]
ENTRYPOINT ["python", "-m", "infra.azure.inside_container.main"]
