"""Watches for forks of given processes by the kernel's process events, until a line on stdin.

Runs in the dev host as root: `python3 watch_forks.py PID...`. Events are exact, where a look at
/proc now and then would miss a short child. See linux/cn_proc.h; threads are not counted.
"""

import json
import os
import select
import socket
import struct
import sys

NETLINK_CONNECTOR = 11
CN_IDX_PROC = CN_VAL_PROC = 1
PROC_CN_MCAST_LISTEN = 1
PROC_EVENT_FORK = 1
NLMSG_DONE = 3


def main(pids):
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR)
    events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    events.bind((0, CN_IDX_PROC))
    connector = struct.pack("=IIIIHHI", CN_IDX_PROC, CN_VAL_PROC, 0, 0, 4, 0, PROC_CN_MCAST_LISTEN)
    header = struct.pack("=IHHII", 16 + len(connector), NLMSG_DONE, 0, 0, os.getpid())
    events.send(header + connector)
    print("watching", flush=True)
    ours, others = [], 0
    while True:
        ready, _, _ = select.select([events, sys.stdin], [], [])
        if events in ready:
            message = events.recv(4096)[16 + 20 :]  # after nlmsghdr and cn_msg
            what, _, _, _, parent_group, child, child_group = struct.unpack_from(
                "=IIQIIII", message
            )
            if what != PROC_EVENT_FORK or child != child_group:
                continue  # no fork, or only a new thread
            if parent_group in pids:
                ours.append([parent_group, child])
            else:
                others += 1
        elif sys.stdin in ready:
            print(json.dumps({"ours": ours, "others": others}))
            return


main({int(pid) for pid in sys.argv[1:]})
