"""A client that is not Python and has no proto files: buf curl, by reflection alone."""

import json
import subprocess
import uuid

import pytest
from devhost import ROOT

BUF = ROOT / ".cache/npm/node_modules/.bin/buf"
TLS = ROOT / ".cache/devhost/tls"
PORTS = {"nexus.vmm.v1.VmService": 7700, "nexus.netd.v1.NetworkService": 7701}


def curl(service, method, body, *, fails=False):
    argv = [BUF, "curl", "--protocol", "grpc", "--cacert", TLS / "ca.pem"]
    argv += ["--cert", TLS / "client.pem", "--key", TLS / "client.key", "-d", json.dumps(body)]
    argv += [f"https://127.0.0.1:{PORTS[service]}/{service}/{method}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if fails:
        assert done.returncode != 0
        return json.loads(done.stderr)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def vmm(method, body, **options):
    return curl("nexus.vmm.v1.VmService", method, body, **options)


@pytest.fixture
def name(devhost):
    yield "by-curl"
    devhost.nexusctl("vm", "delete", "by-curl", "--force", "--yes", check=False)


def test_a_vm_from_create_to_delete(hello, name):
    create = {"name": name, "requestId": str(uuid.uuid4())}
    made = vmm("CreateVm", create)["vm"]
    assert made["state"] == "VM_STATE_CREATED"
    assert vmm("CreateVm", create)["vm"]["id"] == made["id"]

    assert vmm("StartVm", {"vm": name})["vm"]["state"] == "VM_STATE_RUNNING"
    assert vmm("StartVm", {"vm": name}, fails=True)["code"] == "failed_precondition"
    assert {"hello", name} <= {vm["name"] for vm in vmm("ListVms", {})["vms"]}
    assert vmm("DeleteVm", {"vm": name}, fails=True)["code"] == "failed_precondition"
    assert vmm("StopVm", {"vm": made["id"], "graceSeconds": 0})["vm"]["state"] == "VM_STATE_STOPPED"
    assert vmm("DeleteVm", {"vm": name}) == {}
    assert vmm("GetVm", {"vm": name}, fails=True)["code"] == "not_found"


def test_the_network_by_reflection(hello):
    network = curl("nexus.netd.v1.NetworkService", "EnsureNetwork", {})["network"]
    assert network["bridge"] == "nexbr0"
    assert len(curl("nexus.netd.v1.NetworkService", "ListPorts", {})["ports"]) >= 1
