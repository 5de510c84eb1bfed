"""Tests of mcp_bridge.mcp_client."""
