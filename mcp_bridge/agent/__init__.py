"""The conversation: the loop, its events, and the conversions between OpenAI and MCP."""
