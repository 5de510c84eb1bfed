"""mcp_bridge: any OpenAI client gets every MCP tool.

Requests enter through a door (api, mcp_server, admin, cli), every conversation runs in one loop
(agent.loop), every tool call in one runner (tools.runner); behind us are the neighbours: MCP
servers (mcp_client) and the inference server (inference).
"""
