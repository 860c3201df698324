# One static binary in an empty image: no shell, no libraries, not root.
FROM rust:1.95-slim-bookworm AS build
# Set to true to build from a filled registry cache without network.
ARG CARGO_NET_OFFLINE=false
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY src src
COPY migrations migrations
COPY templates templates
COPY assets assets
# named in Cargo.toml, not built
COPY benches benches
COPY config.example.toml README.md ./
# glibc linked statically: the gnu target needs no other toolchain.
RUN RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --profile image --locked --bin recoup --target "$(rustc -vV | sed -n 's/^host: //p')" --target-dir /target \
    && cp "$(find /target -path '*/image/recoup' -type f -perm -u+x | head -n 1)" /recoup \
    && mkdir /data

FROM scratch
COPY --from=build /recoup /recoup
COPY --from=build --chown=65532:65532 /data /data
# An unprivileged user that needs no entry in a passwd file.
USER 65532:65532
VOLUME /data
ENV RECOUP_SERVER__LISTEN=0.0.0.0:8080 \
    RECOUP_DATABASE__URL=sqlite:///data/recoup.db \
    RECOUP_LOG__FORMAT=json
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=5s CMD ["/recoup", "health"]
ENTRYPOINT ["/recoup"]
CMD ["serve"]
