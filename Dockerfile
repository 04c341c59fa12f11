# syntax=docker/dockerfile:1
# One image for the schema step, the dashboard and the workers. On a GPU box torch brings its CUDA libraries with it; the
# host needs only the NVIDIA driver and container toolkit.

FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/tuner
ENV PATH=/opt/tuner/bin:$PATH
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-input --constraint constraints.txt hatchling editables
COPY pyproject.toml README.md LICENSE ./
COPY studies ./studies
COPY tuner ./tuner
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-input --constraint constraints.txt --no-build-isolation ".[gcs,mysql,postgres,s3,vision]"

FROM python:3.11.14-slim-bookworm
RUN groupadd --gid 10001 tuner \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /files --shell /usr/sbin/nologin tuner \
    && install --directory --owner=10001 --group=10001 /files
COPY --from=build /opt/tuner /opt/tuner
# The root file system is read-only at run time: everything that is written goes to /files and /tmp.
ENV PATH=/opt/tuner/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/files/hub \
    TUNER_FILES=/files
USER 10001:10001
WORKDIR /files
STOPSIGNAL SIGTERM
ENTRYPOINT ["tuner"]
CMD ["--help"]
