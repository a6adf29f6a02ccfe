"""Other firewalls of this host: what in them stops guests, and what lets guests pass."""
