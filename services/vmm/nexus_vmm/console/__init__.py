"""The serial consoles of VMs: their logs, and typing into them."""
