"""netd: the network of microVMs on one host."""
