"""The agent-gateway: carries commands, files and MCP into guests over vsock."""
