"""nftables: the tables, and what networks, ports, links and policies put into them."""
