"""What vmm sees of real TAPs, as netd makes them: in namespaces of a process of their own."""

import asyncio
import json
import sys

SECONDS = 30
UID = 70_000

STEPS = """
import json, os, subprocess, sys
from pathlib import Path
from nexus_netd.linux import tuntap
from nexus_vmm.machine.tap import obstacle

devices, uid = Path(sys.argv[1]) / "class/net", int(sys.argv[2])
seen = {"before": obstacle("nexus0", uid, devices)}
descriptor, name = tuntap.create(uid, ["nexus0"])
seen["made"] = obstacle(name, uid, devices)
subprocess.run(["ip", "link", "set", name, "up"], check=True)
tuntap.persist(descriptor, name)
seen["openable"] = tuntap.give(name, uid)  # opens it, as Firecracker does
seen["kept, still open"] = obstacle(name, uid, devices)
os.close(descriptor)
seen["in place"] = obstacle(name, uid, devices)
seen["of another"] = obstacle(name, uid + 1, devices)
tuntap.give(name, uid + 1)
seen["handed over"] = obstacle(name, uid + 1, devices)
print(json.dumps(seen))
"""


async def test_a_tap_is_free_only_once_netd_has_let_go_of_it(tmp_path):
    (tmp_path / "sys").mkdir()
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--net", "--mount", "sh", "-c"),
        f'mount -t sysfs none {tmp_path}/sys && exec "$@"',
        *("sh", sys.executable, "-c", STEPS, str(tmp_path / "sys"), str(UID)),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS):
        said, _ = await process.communicate()
    seen = json.loads(said)
    assert "there is none" in seen["before"]
    assert {seen["made"], seen["kept, still open"]} == {"a process has it open"}
    assert not seen["openable"]
    assert (seen["in place"], seen["handed over"]) == ("", "")
    assert f"user {UID}, not to the VM's" in seen["of another"]
