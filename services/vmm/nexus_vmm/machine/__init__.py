"""The driver on Firecracker, its files, and systemd's units."""
