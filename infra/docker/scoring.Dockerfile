# The scoring container: one bundle, fetched at its start, behind the scoring API. No torch, no Prefect, no root.
# Build from the project's folder: podman build -f infra/docker/scoring.Dockerfile .
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /build
COPY pyproject.toml constraints.txt ./
# Only what the extra asks for: without the packages' folders the project itself is an empty distribution.
RUN sed -i '/^readme = /d' pyproject.toml \
    && python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install --no-cache-dir --constraint constraints.txt ".[container]"
# What serving never loads: ONNX Runtime's tools for converting, what only those use, its library for C programs, tests.
RUN python3 -m pip --python /opt/venv/bin/python uninstall --yes sympy mpmath \
    && find /opt/venv/lib/python3*/site-packages/onnxruntime -mindepth 1 -maxdepth 2 \
        \( -name backend -o -name datasets -o -name quantization -o -name tools -o -name transformers \
        -o -name "libonnxruntime.so*" \) -prune -exec rm -rf {} + \
    && find /opt/venv -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +
COPY infra /opt/scoring/infra
COPY model /opt/scoring/model
RUN /opt/venv/bin/python -m compileall -q /opt/scoring

FROM ${BASE_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ahclassifier scoring" \
    org.opencontainers.image.description="Serves one bundle of an image classifier over HTTP." \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/scoring \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    AHC_HOME=/tmp/ahc
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/scoring /opt/scoring
WORKDIR /opt/scoring
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# Starting may take as long as the container waits for Azure.
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-m", "infra.azure.container_health"]
ENTRYPOINT ["python", "-m", "infra.azure.scoring_container"]
