"""vmm: the life of Firecracker microVMs on one host."""
