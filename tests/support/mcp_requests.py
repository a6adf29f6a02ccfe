"""Requests of MCP, written by hand."""

LEGACY, MODERN = "legacy", "2026-07-28"


def initialize(version="2025-06-18"):
    client = {"name": "test", "version": "0"}
    return {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": version, "capabilities": {}, "clientInfo": client},
    }
