"""docs/metrics.md lists what vmm measures and looks at, and nothing else."""

import ast
import re
from pathlib import Path

import vmm_guest

import nexus_vmm
from nexus_rpc import interceptors
from nexus_vmm.operations.ladder import Rung
from nexus_vmm.reports import health, stats, subsystems

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/metrics.md").read_text()
UNITS = {"s": "_seconds"}


def table(first):
    """Return the cells of the table whose first column is headed `first`, by that column."""
    rows = re.search(rf"\n\| {first} \|.*\n\|---.*\n((?:\|.*\n)+)", PAGE)[1].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {key.strip("`"): others for key, *others in cells}


def words(cell):
    return re.findall(r"`([\w -]+)`", cell)


def calls(path):
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def sources():
    return Path(nexus_vmm.__file__).parent.rglob("*.py")


def instruments(path):
    """Return the metrics that a module makes, as Prometheus names them."""
    found = set()
    for call in calls(path):
        kind = getattr(call.func, "attr", "").removeprefix("create_").removeprefix("observable_")
        if kind not in {"counter", "gauge", "histogram", "up_down_counter"}:
            continue
        given = {word.arg: word.value for word in call.keywords}
        unit = UNITS[given["unit"].value] if "unit" in given else ""
        total = "_total" if kind == "counter" else ""
        found.add(call.args[0].value.replace(".", "_") + unit + total)
    return found


def families():
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: family
        for family in stats.families((), 0)
    }


def test_metrics():
    made = set().union(*map(instruments, sources()))
    assert "nexus_vmm_start_duration_seconds" in made
    assert table("metric").keys() == (
        made | families().keys() | instruments(Path(interceptors.__file__))
    )


def test_labels_of_the_figures_of_vms():
    told = table("metric")
    for name, family in families().items():
        assert words(told[name][0]) == list(family._labelnames), name


def test_labels():
    told = {label: words(cell) for label, (cell,) in table("label").items()}
    stages = {
        call.args[0].value
        for path in sources()
        for call in calls(path)
        if getattr(call.func, "attr", getattr(call.func, "id", "")) == "stage"
    }
    proto = (ROOT / "protos/nexus/vmm/v1/vmm.proto").read_text()
    causes = re.search(r"\n  // One word:(.*?)\n  string cause = 1;", proto, re.DOTALL)[1]
    assert set(told.pop("stage")) == stages
    assert set(told.pop("cause")) - {"last_exit"} == {*re.findall(r'"(\w+)"', causes), "boot again"}
    assert told.pop("rung") == list(Rung)
    assert told.pop("subsystem") == list(looked_at())
    assert not told


def looked_at():
    """Return the names of the subsystems."""
    return subsystems.checks(None, (), None, None, vmm_guest.spec)


def test_subsystems():
    assert table("subsystem").keys() == looked_at().keys()


def test_numbers():
    assert subsystems.LEAST_BYTES == 1 << 30
    assert (
        f"have a GiB (or a twentieth, if that is less) and {subsystems.LEAST_FILES:,} files" in PAGE
    )
    assert subsystems.LEAST_SHARE == 1 / 20
    assert f"written and read within {health.SECONDS:g} s" in PAGE
    assert f"at most every {health.FRESH:g} s, and every" in PAGE
    assert f"at most every {stats.FRESH:g} s, when somebody asks" in PAGE
    assert f"at most the\n{stats.MOST:,} oldest" in PAGE
