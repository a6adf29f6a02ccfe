"""The completion scripts, in the shells they are for."""

import subprocess

import pytest

from nexusctl.completion import script

WORDS = [
    (["nexusctl", ""], {"status", "version", "vm", "net", "mcp-bridge", "completion"}, set()),
    (["nexusctl", "vm", "cr"], {"create"}, {"list"}),
    (["nexusctl", "vm", "create", "--m"], {"--memory"}, {"--cpus"}),
    (["nexusctl", "--endpoint", "vm", "v"], {"vm"}, set()),
    (["nexusctl", "vm", "list", "--"], {"--json", "--quiet"}, {"--kernel"}),
    (["nexusctl", "net", ""], {"policy", "explain", "migrate"}, {"exec"}),
    (["nexusctl", "net", "policy", "hello", ""], {"open", "none", "--allow"}, {"--up"}),
    (["nexusctl", "completion", ""], {"bash", "zsh"}, {"vm"}),
    (["nexusctl", "vm", "create", "--image", ""], set(), {"--cpus"}),
    (["nexusctl", "vm", "exec", "x", "--", "--"], set(), {"--env"}),
]


@pytest.mark.spawns
@pytest.mark.parametrize(("words", "there", "absent"), WORDS)
def test_bash(words, there, absent):
    ask = f"""{script("bash")}
COMP_WORDS=({" ".join(repr(word) for word in words)})
COMP_CWORD={len(words) - 1}
_nexusctl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    offered = set(done.stdout.split())
    assert done.stderr == ""
    assert there <= offered
    assert not absent & offered


def test_zsh_takes_it_through_its_bash_layer():
    text = script("zsh")
    assert text.startswith("#compdef nexusctl\n")
    assert "bashcompinit" in text
    assert text.endswith(script("bash"))
