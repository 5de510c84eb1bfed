"""Door for MCP clients: the facade that shows all sources as one MCP server, and its routes."""
