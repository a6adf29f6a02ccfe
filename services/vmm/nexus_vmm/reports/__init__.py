"""How vmm and its VMs are: health and figures."""
