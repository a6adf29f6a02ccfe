"""`make bench`: measures in the dev host and prints the report; figures go to .cache/bench.json."""

import json
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from devhost import ROOT, DevHost

ROWS = {
    "create_to_first_exec": ("create to first exec", "bare Firecracker by hand"),
    "exec_round_trip": ("exec round trip", "bare vsock connection"),
    "attach_port": ("AttachPort", "CNI bridge + host-local ADD"),
    "get_vm": ("GetVm", "empty gRPC echo"),
}


def main():
    devhost = DevHost()
    devhost.run("cat > /root/measure.py", stdin=Path(__file__).with_name("measure.py").read_bytes())
    python = "/usr/lib/nexus/gateway/bin/python /root/measure.py"
    arguments = shlex.join(sys.argv[1:])
    figures = json.loads(devhost.out(f"{python} {arguments}", timeout=1800).splitlines()[-1])
    (ROOT / ".cache/bench.json").write_text(json.dumps(figures, indent=2) + "\n")

    print(f"{'':22} {'Nexus':>10} {'raw':>10} {'ratio':>7}   raw is")
    for key, (name, raw) in ROWS.items():
        row = figures[key]
        ours, theirs = f"{row['nexus']:.2f} ms", f"{row['raw']:.2f} ms"
        about = f"{raw}, median of {row['rounds']}"
        print(f"{name:22} {ours:>10} {theirs:>10} {row['ratio']:>7.2f}   {about}")
    for unit, kib in figures["rss_kib"].items():
        print(f"{unit:22} {kib / 1024:>7.1f} MiB resident, idle")


if __name__ == "__main__":
    main()
