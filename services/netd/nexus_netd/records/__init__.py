"""The store: networks, leases, policies, links and publications in SQLite."""
