"""The settings that the store keeps: their table, values and versions."""
