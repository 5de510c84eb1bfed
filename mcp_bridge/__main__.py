"""`python -m mcp_bridge` is the same as the command `mcp-bridge`."""

from mcp_bridge.cli import main

if __name__ == "__main__":
    main()
