"""Ids of VMs, the user that the process of each runs as, and the users of the services."""

from nexus_launch import Refused

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_ID_LENGTH = 13
_FIRST_UID = 0x70000000
_UID_BITS = 0x0FFFFFFF


def is_vm_id(text: str) -> bool:
    """Whether `text` has the form of an id; a test holds this against nexus_rpc.ids."""
    return len(text) == _ID_LENGTH and all(char in _ALPHABET for char in text)


def vm_uid(vm_id: str) -> int:
    """Return the user and group id of the VM's process, as nexus_rpc.ids.vm_uid does."""
    number = 0
    for char in vm_id:
        number = number << 5 | _ALPHABET.index(char)
    # Of the 65 bits of 13 characters (RFC 4648) the lowest two are no part of an id's 63.
    return _FIRST_UID | number >> 2 & _UID_BITS


def number_of(name: str, path: str) -> int:
    """Return the number of a user or group in /etc/passwd or /etc/group. Raises Refused.

    systemd-sysusers puts them there. getpwnam(3) loads libraries first, which takes longer than
    all else that the launcher looks at.
    """
    with open(path, "rb") as file:
        for line in file:
            if line.startswith(name.encode() + b":"):
                return int(line.split(b":")[2])
    raise Refused(f"there is no {name} in {path}; run: systemd-sysusers nexus.conf")
