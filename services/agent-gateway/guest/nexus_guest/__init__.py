"""The agent inside every guest, and the frame codec that it shares with the gateway."""

VERSION = "0.1.0"
