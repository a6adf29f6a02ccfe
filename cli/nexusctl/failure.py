"""What went wrong, as nexusctl tells it: a message, the next step to try, and the exit code.

Everything that ends a command early becomes a `Failure`; `of` makes one from the error of a
service by two tables. gRPC is not imported here, so that a usage error costs no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from nexusctl.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nexus_rpc.errors import NexusError

OK = 0
GENERAL = 1
USAGE = 2
UNREACHABLE = 3
NOT_FOUND = 4
CONFLICT = 5
REFUSED = 6
"""`net explain`: the connection would be refused."""
OWN = 125
"""nexusctl's own failure in `vm exec` and `vm run`, where other codes are the command's."""

_EXIT_BY_CODE = {
    "UNAVAILABLE": UNREACHABLE,
    "NOT_FOUND": NOT_FOUND,
    "ALREADY_EXISTS": CONFLICT,
    "FAILED_PRECONDITION": CONFLICT,
}

_EXIT_BY_REASON = {
    # The service answers; it is the guest that does not.
    "GUEST_UNREACHABLE": GENERAL,
}

_EXIT_OF_COMMAND = {
    # As shells and docker say it.
    "FILE_DENIED": 126,
    "COMMAND_NOT_FOUND": 127,
}

_TRY = {
    "BALLOON_REFUSED": "give less than the VM's memory; nexusctl vm inspect {vm} shows it",
    "BOOT_FAILED": "nexusctl vm logs {vm} --tail 50",
    "ADDRESS_TAKEN": "leave --ip out, or choose another; nexusctl net ports shows those in use",
    "BRIDGE_FOREIGN": "give another --bridge, or for the network default another in "
    "/etc/nexus/netd.toml",
    "COMMAND_NOT_FOUND": "there is no shell in between; for one: -- sh -c 'COMMAND'",
    "CONNECTION_LOST": "journalctl -u nexus-{service} on its host, then run the command again",
    "CONNECTION_REFUSED": "systemctl status nexus-{service} on its host, or another --endpoint",
    "DEADLINE_EXCEEDED": "nexusctl status, and nexusctl vm list for what became of it",
    "DEFECT": "journalctl -u nexus-{service} on its host, and report it",
    "DISK_FULL": "make room on the host, or ask for a smaller --disk",
    "ETAG_MISMATCH": "nexusctl vm inspect {vm} shows what it is now",
    "FIELD_FIXED": "nexusctl vm create makes another",
    "FILE_DENIED": "nexusctl vm exec {vm} -- ls -l, to see who may use it",
    "FILE_NOT_FOUND": "nexusctl vm exec {vm} -- ls, to see what there is",
    "FIRECRACKER_SILENT": "nexusctl vm stop {vm} --grace 0 ends it",
    "GUEST_BUSY": "wait until other commands in the guest have ended",
    "GUEST_DISK_FULL": "nexusctl vm exec {vm} -- df -h, then delete what is not needed",
    "GUEST_NOT_READY": "nexusctl vm logs {vm} --tail 50, or wait longer with --timeout",
    "GUEST_PROTOCOL": "nexusctl vm logs {vm} --tail 50; a stop and a start give a fresh agent",
    "GUEST_UNREACHABLE": "nexusctl vm logs {vm} --tail 50",
    "HOST_PORT_IN_USE": "choose another; ss -lntup on the host shows who listens",
    "HOST_PORT_PUBLISHED": "nexusctl net published shows to whom; nexusctl net unpublish frees it",
    "IMAGE_NOT_FOUND": "nexusctl version lists the images and kernels",
    "INVALID_FIELD": "nexusctl {command} --help",
    "IPV6_BY_RA": "sysctl net.ipv6.conf.LINK.accept_ra=2 on the host, for good in /etc/sysctl.d",
    "KERNEL": "run the command again; if it stays: journalctl -u nexus-{service} on its host",
    "NAME_TAKEN": "choose another name, or look at it: nexusctl vm inspect {vm}",
    "NETWORK_EXISTS": "choose another name or --bridge; nexusctl net list shows what there is",
    "NETWORK_IN_USE": "nexusctl net ports --network {network} shows whose; delete those VMs first",
    "NETWORK_NOT_FOUND": "nexusctl net list shows what there is",
    "NETWORK_PERMANENT": "nexusctl net cleanup takes it from the kernel until it is used again",
    "NOT_A_FILE": "name a file; a directory goes as a tar archive",
    "NO_SERIAL_INPUT": "nexusctl vm stop {vm}, vm update {vm} --serial-input on, vm start {vm}",
    "NO_BALLOON": "nexusctl vm stop {vm}, then vm update {vm} --balloon on, and vm start {vm}",
    "NO_CAPACITY": "nexusctl status shows what is used; nexusctl config list what may be",
    "NO_INTERFACE": "create the VM anew, without --no-network",
    "PORT_DIFFERS": "nexusctl net inspect {vm} shows the port that it has",
    "PORT_LOST": "nexusctl net attach {vm}, with --net and policy as it had them",
    "PORT_NOT_FOUND": "nexusctl net ports shows what there is; --no-network makes a VM without",
    "QUOTA_EXCEEDED": "nexusctl status shows what is used; nexusctl config get quota.tags",
    "SOCKET_DENIED": "sudo usermod -aG {group} {user}, then log in again",
    "SOCKET_MISSING": "systemctl status nexus-{service}, or another --endpoint",
    "STDIN_TOO_LARGE": "nexusctl vm cp - {vm}:/tmp/input, then read it from there",
    "SUBNET_FULL": "delete VMs that are not needed, or move to a larger subnet: "
    "nexusctl net migrate",
    "SUBNET_IN_USE": "give another subnet; that of the network default is in /etc/nexus/netd.toml",
    "SUBNET_OVERLAPS": "give another subnet; nexusctl net list shows those in use",
    "TLS_FAILED": "check ca, cert and key in the config file, and that host and port are right",
    "UNIMPLEMENTED": "nexusctl version; service and nexusctl must be of one release",
    "TOO_MANY_FOLLOWERS": "leave --follow out, or end another nexusctl that follows",
    "VERSION_MISMATCH": "nexusctl config list shows what holds, and its version",
    "VERSION_NOT_FOUND": "nexusctl config history shows what is kept",
    "VERSION_UNFIT": "nexusctl config history shows its values; set those that you want",
    "VMS_RUNNING": "stop them first, or nexusctl net cleanup --force",
    "VM_LIVE": "nexusctl vm delete {vm} --force, or nexusctl vm stop {vm} first",
    "VM_NOT_FOUND": "nexusctl vm list shows what there is",
    "VM_NOT_LIVE": "nexusctl vm start {vm}",
    "VM_PAUSED": "nexusctl vm resume {vm}",
    "VM_STATE": "nexusctl vm inspect {vm} shows its state",
}


class Failure(Exception):
    """The end of a command that could not be done."""

    def __init__(self, message: str, way_out: str = "", exit_code: int = GENERAL) -> None:
        super().__init__(message)
        self.message = message
        self.way_out = way_out
        self.exit_code = exit_code


class _Words(dict[str, str]):
    """The words of a way out; one that nobody gave stands in capitals, as in a manual."""

    def __missing__(self, key: str) -> str:
        return key.upper()


def of(error: NexusError, words: Mapping[str, str]) -> Failure:
    """Return the failure that `error` is.

    `words` fill the way out: `vm` and `command` as the user gave them. Notes on the error
    (PEP 678) say what was done before it, and are told with it.
    """
    told = _Words(error.metadata)
    told.update({word: value for word, value in words.items() if value})
    message = "; ".join([error.message or error.reason, *getattr(error, "__notes__", ())])
    exit_code = _EXIT_BY_REASON.get(error.reason, _EXIT_BY_CODE.get(error.code.name, GENERAL))
    return Failure(message, _TRY.get(error.reason, "").format_map(told), exit_code)


def of_command(error: NexusError, words: Mapping[str, str]) -> Failure:
    """Return the failure that `error` is where the exit code is that of a command in a guest."""
    failure = of(error, words)
    failure.exit_code = _EXIT_OF_COMMAND.get(error.reason, OWN)
    return failure


def tell(failure: Failure, stream: TextIO) -> int:
    """Write the failure for people, and return its exit code."""
    print(f"nexusctl: {printable(failure.message)}", file=stream)
    if failure.way_out:
        print(f"try: {printable(failure.way_out)}", file=stream)
    return failure.exit_code
