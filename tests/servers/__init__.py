"""MCP servers for the tests: a scripted one over stdio, and SDK servers on loopback."""
