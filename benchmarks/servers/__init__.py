"""What the bridge is measured against, and the MCP servers behind it."""
