# llmproxyd in a container; docs/container.rst tells how it is run.

FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/llmproxyd \
    && /opt/llmproxyd/bin/pip install --no-cache-dir ".[redis,postgres]" \
    # Twisted's list of plugins, which the daemon's user could not write.
    && /opt/llmproxyd/bin/llmproxyd --version

FROM python:3.13-slim
# The number is what a volume's files belong to: it stays.
RUN groupadd --gid 10001 llmproxyd \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/llmproxyd --shell /usr/sbin/nologin llmproxyd \
    && install -d -m 0700 -o 10001 -g 10001 /var/lib/llmproxyd /run/llmproxyd
COPY --from=build /opt/llmproxyd /opt/llmproxyd
ENV PATH=/opt/llmproxyd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STATE_DIRECTORY=/var/lib/llmproxyd \
    RUNTIME_DIRECTORY=/run/llmproxyd
WORKDIR /var/lib/llmproxyd
USER 10001:10001
VOLUME /var/lib/llmproxyd
EXPOSE 8888
# Over the loopback within the container, past any proxy that the environment names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8888, timeout=4); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["llmproxyd", "--no-stdin"]
# Without a configuration it listens on the container's own loopback alone, where nobody else gets to.
CMD []
