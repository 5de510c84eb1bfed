"""MCP servers over stdio that come with the bridge: clock, calculator and notes.

Each runs by itself: `python -m mcp_bridge.demo.servers.clock`.
"""
