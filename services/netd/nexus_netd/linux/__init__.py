"""The kernel port on Linux: netlink, TUN, and what they say."""
