"""What VMs may use of the host, and whether one more fits."""
