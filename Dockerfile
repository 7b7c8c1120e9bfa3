# One image for every role: docker-compose.yml says which command each service runs.
#
#   docker build -t briefbox .                    with CUDA (on x86-64; torch's wheel brings its own CUDA libraries,
#                                                 so the NVIDIA container runtime is all the host needs)
#   docker build -t briefbox --build-arg TORCH_ARGS="--index-url ADDRESS" .
#                                                 for the CPU alone and gigabytes smaller; ADDRESS is the CPU-only
#                                                 index that PyTorch's installation page names
#   docker run --rm --init -p 127.0.0.1:8025:8025 briefbox demo --host 0.0.0.0
#
# --init (compose: init: true) gives the container a process 1 that reaps orphans and passes signals on.

FROM python:3.12-slim-bookworm AS build

RUN python -m venv /opt/briefbox
ENV PATH=/opt/briefbox/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /src

# The layers go from what changes least to what changes most. The version of torch is that of the Makefile.
ARG TORCH_ARGS=""
RUN pip install torch==2.13.0 $TORCH_ARGS

# --no-deps: the lock is complete; see the Makefile.
COPY requirements.lock ./
RUN pip install --no-deps --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY briefbox briefbox/
COPY ingest ingest/
COPY models models/
COPY workers workers/
COPY desk desk/
COPY training training/
RUN pip install --no-deps --no-build-isolation .


FROM python:3.12-slim-bookworm

# A fixed number, so that the owner of a volume stays the same from image to image and a host can check that it is not 0.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp briefbox \
    && install -d -o briefbox -g briefbox -m 0700 /data
COPY --from=build /opt/briefbox /opt/briefbox

# The root file system may be read-only: all state is in /data, and libraries that want a home get /tmp.
ENV PATH=/opt/briefbox/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    BRIEFBOX_DATA_DIR=/data
USER 10001:10001
VOLUME /data
EXPOSE 8025

# No HEALTHCHECK here: of all roles only the desk listens on a port, so its check is in docker-compose.yml. The
# other roles show their state in the database (`briefbox audit`), and end when they can't go on.
ENTRYPOINT ["briefbox"]
CMD ["--help"]
