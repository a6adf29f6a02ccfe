"""The resolver: answers guests' DNS as netd says."""
