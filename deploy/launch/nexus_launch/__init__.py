"""The launcher of a VM's process: root for a moment, and then Firecracker in its jail.

It is started with each VM, on slow CPUs too, so it imports what is built into the interpreter or
frozen there, and little else: no re, no typing, no dataclasses.
"""


class Refused(Exception):
    """What was found is not what it should be. Nothing was changed that the unit's end keeps."""
