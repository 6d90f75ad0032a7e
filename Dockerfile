# syntax=docker/dockerfile:1

# The service as a container: a build stage that is thrown away, and a slim image with the one program in it.
#
#     docker build --tag task-repo-service .

ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-bookworm AS build
WORKDIR /src
COPY . .
# The caches outlive a build, so only what has changed is compiled again. The program is copied out because the
# target folder, being a cache, is no part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --package task-repo-server \
    && install -D target/release/task-repo-server /out/task-repo-server

FROM debian:bookworm-slim
# Certificates for TLS to MongoDB. The version is whatever the base image's suite has: a pinned one disappears.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin task-repo
COPY --from=build /out/task-repo-server /usr/local/bin/task-repo-server
# By number, so that an orchestrator can tell that it is not root.
USER 10001
EXPOSE 8503
# A clean end: open requests are finished, waiting callers answered, running work left to its lease.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["task-repo-server", "health"]
ENTRYPOINT ["task-repo-server"]
