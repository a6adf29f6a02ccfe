"""docs/architecture.md says what the code does, where a table of it can be compared."""

import dataclasses
import importlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
import vmm_guest

from deploy import manual
from nexus_netd.rules import firewall
from nexus_rpc.server import ServerSettings, TlsListener
from nexus_vmm import restarts
from nexus_vmm.states import TABLE, Event, State
from nexus_vmm.vm import Condition, Exit, Goal, RestartPolicy

PAGE = (Path(__file__).parents[3] / "docs/architecture.md").read_text()


def table(after):
    """Return the cells of the first table behind the text `after`, by the first column."""
    _, found, rest = PAGE.partition(f"\n{after}")
    assert found, after
    rows = re.search(r"\n\|---.*\n((?:\|.*\n)+)", rest)[1].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {first: others for first, *others in cells}


def test_states():
    steps = {
        state: ", ".join(
            f"{event} → {TABLE[state, event]}" for event in Event if (state, event) in TABLE
        )
        for state in State
        if state is not State.DELETED
    }
    assert table("## States of a VM") == {state: [what] for state, what in steps.items()}


def test_state_diagram():
    assert manual.with_state_diagram(PAGE) == PAGE, "make docs"


def test_restart_conditions():
    told = table("A VM's restart policy")
    live = vmm_guest.vm(state=State.RUNNING, goal=Goal.RUN)
    for condition in Condition:
        vm = replace(live, spec=vmm_guest.spec(restart=RestartPolicy(condition)))
        dues = [
            restarts.judge(vm, Event.EXIT, Exit(cause, ""), 1).restarts.due
            for cause in ("signal", "shutdown")
        ]
        dues.append(restarts.after_host_boot(vm, 1).due)
        assert told.pop(condition) == ["started" if due else "-" for due in dues]
    assert not told


def test_base_chains():
    told = [tuple(re.findall(r"\w+", first)) for first in table("Two nftables tables")]
    assert told == [
        (skeleton.family.name.lower(), chain.name)
        for skeleton in firewall.skeletons()
        for chain in skeleton.chains
        if chain.kind
    ]


def defaults(settings, prefix=""):
    """Return the keys and defaults of a dataclass as TOML writes them."""
    found = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found |= defaults(value, f"{prefix}{field.name}.")
        else:
            found[f"`{prefix}{field.name}`"] = f"`{written(value)}`"
    return found


def written(value):
    match value:
        case str() | Path():
            return f'"{value}"'
        case tuple():
            return f"[{', '.join(map(written, value))}]"
    return repr(value)


def told(after):
    return {key: default for key, (default, _) in table(after).items()}


@pytest.mark.parametrize("service", ["vmm", "netd", "dns", "gateway"])
def test_settings_of_a_service(service):
    settings = importlib.import_module(f"nexus_{service}.settings").Settings()
    assert str(settings.server.runtime_dir) == f"/run/nexus/{service}"
    own = {key: value for key, value in defaults(settings).items() if "server." not in key}
    assert told(f"{service}:\n") == own


def test_settings_of_all_services(monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    settings = ServerSettings(Path("/run/nexus/NAME"), tls=TlsListener(""))
    expected = defaults(settings, "server.") | {"`server.tls.listen`": "none"}
    assert told("Of all services") == expected
