"""Ids of VMs, and the user that the process of each runs as."""

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
