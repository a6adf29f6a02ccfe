import pytest

from nexusctl import restart, ttl
from nexusctl.arguments import parse


def fails(capsys, *argv):
    with pytest.raises(SystemExit) as end:
        parse(argv)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "module"),
    [
        (["status"], "status"),
        (["vm", "list"], "vm_list"),
        (["mcp-bridge", "--vm", "x"], "mcp_bridge"),
        (["vm", "exec", "x", "--", "ls"], "vm_exec"),
    ],
)
def test_each_command_names_its_module(argv, module):
    assert parse(argv).leaf.module == module


@pytest.mark.parametrize(
    "argv",
    [
        ["--endpoint", "unix:/a", "vm", "list"],
        ["vm", "--endpoint", "unix:/a", "list"],
        ["vm", "list", "--endpoint", "unix:/a"],
    ],
)
def test_the_endpoint_may_stand_anywhere(argv):
    assert parse(argv).endpoint == "unix:/a"


def test_what_follows_the_dashes_is_the_commands_alone():
    options = parse(["vm", "exec", "x", "--env", "A=b", "--", "ls", "--json", "--", "-x"])
    assert options.argv == ["ls", "--json", "--", "-x"]
    assert options.env == [("A", "b")]


def test_of_an_option_given_twice_the_defaults_are_not_shared():
    parse(["vm", "exec", "x", "--env", "A=b", "--", "ls"])
    assert parse(["vm", "exec", "x", "--", "ls"]).env == []


@pytest.mark.parametrize(
    ("text", "mebibytes"), [("512", 512), ("512M", 512), ("2G", 2048), ("2g", 2048), ("0", 0)]
)
def test_sizes(text, mebibytes):
    assert parse(["vm", "create", "x", "--memory", text]).memory == mebibytes


@pytest.mark.parametrize(
    ("text", "ago"), [("0s", 0), ("30s", 30), ("10m", 600), ("2h", 7200), ("3d", 259_200)]
)
def test_how_long_ago(monkeypatch, text, ago):
    monkeypatch.setattr("time.time", lambda: 1_000_000.5)
    since = parse(["vm", "logs", "x", "--since", text]).since
    assert since == (1_000_000.5 - ago) * 1_000_000


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-01T02:00:00.5+01:00", 3_600_500_000),
        ("1970-01-01T00:00:00+01:00", 0),
        ("999999999d", 0),
    ],
)
def test_times(text, since):
    assert parse(["vm", "logs", "x", "--since", text]).since == since


@pytest.mark.parametrize(
    "text", ["", "10", "-1m", "1w", "2026-01-31", "2026-01-31T12:00:00", "1m2s"]
)
def test_what_is_no_time(capsys, text):
    code, told = fails(capsys, "vm", "logs", "x", f"--since={text}")
    assert (code, "such as 30s, 10m" in told) == (2, True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("none", "none"),
        ("on-boot", "on-boot:backoff"),
        ("always:backoff", "always:backoff"),
        ("on-failure:immediate", "on-failure:immediate"),
        ("always:fixed=5s", "always:fixed=5s"),
        ("always:fixed=5", "always:fixed=5s"),
    ],
)
def test_restart_policies(text, told):
    parts = parse(["vm", "update", "x", "--restart", text]).restart
    assert restart.text(restart.policy(parts)) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("none", "none"),
        ("8h", "8h:stop"),
        ("max=90m:delete", "90m:delete"),
        ("600", "10m:stop"),
        ("idle=90s:pause", "idle=90s:pause"),
        ("8h,idle=1800", "8h,idle=30m:stop"),
        ("7d,idle=24h:delete", "7d,idle=1d:delete"),
    ],
)
def test_times_to_live(text, told):
    parts = parse(["vm", "create", "x", "--ttl", text]).ttl
    assert ttl.text(ttl.time_to_live(parts)) == told


@pytest.mark.parametrize(
    "text", ["", "0", "8h,idle=0s", "idle", "idle=", ",idle=5m", ":stop", "8w", "8h:end", "8h 5m"]
)
def test_what_is_no_time_to_live(capsys, text):
    code, err = fails(capsys, "vm", "update", "x", "--ttl", text)
    assert (code, "idle=30m" in err) == (2, True)


@pytest.mark.parametrize("text", ["", "never", "always:", "always:fixed", "always:fixed=5m"])
def test_what_is_no_restart_policy(capsys, text):
    code, err = fails(capsys, "vm", "create", "x", "--restart", text)
    assert (code, "on-failure" in err) == (2, True)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["vm"],
        ["nothing"],
        ["vm", "create"],
        ["vm", "create", "x", "--memory", "lots"],
        ["vm", "create", "x", "--memory", "9999999999"],
        ["vm", "create", "x", "--cpus", "-1"],
        ["vm", "create", "x", "--cpus", "٣"],
        ["vm", "create", "x", "y"],
        ["vm", "start", "x", "--timeout", "0"],
        ["vm", "start", "x", "--timeout", "nan"],
        ["vm", "start", "x", "--", "y"],
        ["vm", "logs", "x", "--tail", "0"],
        ["vm", "list", "--json", "--quiet"],
        ["vm", "list", "--js"],
        ["mcp-bridge"],
        ["completion", "fish"],
    ],
)
def test_a_usage_error_is_2_and_shows_the_way_to_the_help(capsys, argv):
    code, err = fails(capsys, *argv)
    assert code == 2
    assert err.startswith("nexusctl: ")
    assert "--help\n" in err


@pytest.mark.parametrize(
    "argv",
    [
        ["vm", "exec", "x"],
        ["vm", "exec", "x", "--"],
        ["vm", "exec", "x", "ls"],
        ["vm", "exec", "x", "--env", "A", "--", "ls"],
        ["vm", "run", "--", "ls"],
    ],
)
def test_where_codes_are_the_commands_a_usage_error_is_125(capsys, argv):
    assert fails(capsys, *argv)[0] == 125
