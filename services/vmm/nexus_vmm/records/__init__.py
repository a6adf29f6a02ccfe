"""The store: VMs, and how they change, in SQLite and for watchers."""
