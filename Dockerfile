# mcp_bridge with what its MCP servers are started with: uvx, npx and git.
#
#   docker build -t mcp-bridge .
#   docker run -p 127.0.0.1:8000:8000 -v ./config:/config -e BRIDGE_KEY mcp-bridge
#
# Mount a folder with your config.json at /config (a folder, and not the file alone: editors replace
# files, and the bridge would watch the old one).
#
# The bridge listens on loopback until the configuration says otherwise, in a container too: set
# network.host to 0.0.0.0 there, or MCP_BRIDGE__NETWORK__HOST=0.0.0.0. That is refused while
# security.auth is off, because whoever reaches the port could run the tools.
#
# Servers with "image" need a docker client and a daemon, which this image does not have.

FROM node:22-bookworm-slim AS node

FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY mcp_bridge mcp_bridge
RUN --mount=type=cache,target=/var/cache/pip \
    python -m venv /opt/bridge \
 && /opt/bridge/bin/pip install --cache-dir /var/cache/pip .

FROM python:3.13-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates git libatomic1 libstdc++6 tini \
 && rm -rf /var/lib/apt/lists/* \
 && pip install --no-cache-dir uv==0.13.9
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/lib/node_modules /usr/local/lib/node_modules
# MCP servers get HOME and not our environment: both caches are below it, in one volume.
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm \
 && ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx \
 && ln -s /opt/bridge/bin/mcp-bridge /usr/local/bin/mcp-bridge \
 && npm config set --location=global cache /home/bridge/.cache/npm \
 && useradd --uid 1000 --create-home bridge \
 && install -d -o bridge -g bridge /home/bridge/.cache /config
COPY --from=build /opt/bridge /opt/bridge

# A number, so that Kubernetes can see that it is not root.
USER 1000:1000
ENV HOME=/home/bridge
RUN node --version && npx --version && uvx --version && git --version && mcp-bridge version

# In the container the port is this one, whatever network.port says: publish it as another.
ENV MCP_BRIDGE__NETWORK__PORT=8000
EXPOSE 8000
VOLUME /home/bridge/.cache
WORKDIR /config
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['MCP_BRIDGE__NETWORK__PORT'] + '/healthz', timeout=4)"]

# tini collects the children that MCP servers leave behind, and hands on the signal to stop.
ENTRYPOINT ["tini", "--", "mcp-bridge"]
CMD ["serve"]
