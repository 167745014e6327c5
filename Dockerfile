# syntax=docker/dockerfile:1
#
# Two targets: `cpu`, which is the default, and `gpu`. What a step does is in deploy/image/, so that it can be run and
# tested without a container; `make image` does that with every line of this file. See docs/deploy.md.
#
# The bases are pinned by tag. Pin a digest as well where you build: --build-arg PYTHON_IMAGE=python:...@sha256:...

ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04

# --- what is installed, for a CPU -----------------------------------------------------------------------------------

FROM ${PYTHON_IMAGE} AS build-cpu
WORKDIR /build
# The libraries first: they change seldom, and their layer is the large one.
COPY deploy/image/libraries.sh deploy/image/
COPY requirements/serve.lock requirements/otel.lock requirements/
RUN --mount=type=cache,target=/var/cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    PIP_CACHE_DIR=/var/cache/pip sh deploy/image/libraries.sh /srv/squint requirements/serve.lock requirements/otel.lock
COPY . .
RUN sh deploy/image/compiler.sh && sh deploy/image/project.sh /srv/squint

# --- what is installed, for an NVIDIA GPU ---------------------------------------------------------------------------

FROM ${CUDA_IMAGE} AS base-gpu
COPY deploy/image/python.sh /tmp/python.sh
RUN sh /tmp/python.sh python3

FROM base-gpu AS build-gpu
WORKDIR /build
COPY deploy/image/python.sh deploy/image/libraries.sh deploy/image/
RUN sh deploy/image/python.sh python3-venv
COPY requirements/serve-gpu.lock requirements/otel.lock requirements/
RUN --mount=type=cache,target=/var/cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    PIP_CACHE_DIR=/var/cache/pip sh deploy/image/libraries.sh /srv/squint requirements/serve-gpu.lock requirements/otel.lock
COPY . .
RUN sh deploy/image/compiler.sh && sh deploy/image/project.sh /srv/squint

# --- the images -----------------------------------------------------------------------------------------------------

FROM base-gpu AS gpu
LABEL org.opencontainers.image.title="squint" \
      org.opencontainers.image.description="A vision inference service: classify, detect and segment images" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0-gpu"
COPY --from=build-gpu /srv/squint /srv/squint
RUN install -d -m 0700 -o 10001 -g 10001 /var/cache/squint
ENV PATH=/srv/squint/bin:$PATH \
    HOME=/var/cache/squint \
    SQUINT_CACHE_DIR=/var/cache/squint \
    SQUINT_HOST=0.0.0.0 \
    SQUINT_DRAIN_SECONDS=5
WORKDIR /srv/squint
VOLUME ["/var/cache/squint"]
EXPOSE 8000 8001
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --start-interval=2s --retries=3 CMD ["squint", "health"]
ENTRYPOINT ["squint"]
CMD ["serve"]

FROM ${PYTHON_IMAGE} AS cpu
LABEL org.opencontainers.image.title="squint" \
      org.opencontainers.image.description="A vision inference service: classify, detect and segment images" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build-cpu /srv/squint /srv/squint
RUN install -d -m 0700 -o 10001 -g 10001 /var/cache/squint
# Elsewhere than on this machine somebody must be able to ask; who may is the operator's choice (docs/deploy.md).
ENV PATH=/srv/squint/bin:$PATH \
    HOME=/var/cache/squint \
    SQUINT_CACHE_DIR=/var/cache/squint \
    SQUINT_HOST=0.0.0.0 \
    SQUINT_DRAIN_SECONDS=5
WORKDIR /srv/squint
# What was measured and compiled; the only place that is written. Keep it, and the next start is quick.
VOLUME ["/var/cache/squint"]
EXPOSE 8000 8001
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --start-interval=2s --retries=3 CMD ["squint", "health"]
ENTRYPOINT ["squint"]
CMD ["serve"]
