"""What vmm does with VMs: each operation a plan of steps, and what happens by itself."""
