# The verifier in a small image: compiled in the first stage, of which only the binary is kept.

FROM rust:1-bookworm AS build
# librdkafka is compiled from C with the image's compiler and links the system's OpenSSL.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches keep a rebuild after an edit short; they are not part of the image, so the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin stock-verifier \
    && cp target/release/stock-verifier /usr/local/bin/

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin stock
COPY --from=build /usr/local/bin/stock-verifier /usr/local/bin/
USER 10001
ENTRYPOINT ["stock-verifier"]
CMD ["run"]
