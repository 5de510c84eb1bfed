"""The command."""

import click


@click.group()
def main() -> None:
    """mcp_bridge: any OpenAI client gets every MCP tool."""
