"""What the conformance suite starts as a client: it hands the scenario to the waiting test.

    python relay.py PORT URL

A whole client would take seconds to start, for each scenario. No part of the project is imported.
"""

import json
import os
import sys
import urllib.error
import urllib.request

port, url = sys.argv[1:]
body = {
    "url": url,
    "scenario": os.environ.get("MCP_CONFORMANCE_SCENARIO"),
    "version": os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION"),
    "context": json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}"),
}
request = urllib.request.Request(f"http://127.0.0.1:{port}/", json.dumps(body).encode())
try:
    urllib.request.urlopen(request, timeout=25).read()
except urllib.error.HTTPError as exc:
    sys.exit(exc.read().decode())
