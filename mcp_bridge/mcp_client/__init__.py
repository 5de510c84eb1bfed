"""MCP servers behind us: a connection with its own task each, and the transports."""
