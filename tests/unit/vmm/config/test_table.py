"""The table of settings: every type at both ends of its range, and texts that are no values."""

import pytest

from nexus_rpc.errors import InvalidArgument
from nexus_vmm.config import table as config
from nexus_vmm.config.kinds import Asset, Ratio, Whole
from nexus_vmm.config.table import DEFAULTS, TABLE, Config

NUMBERS = [name for name, setting in TABLE.items() if isinstance(setting.kind, Whole | Ratio)]
OWN = [name for name in NUMBERS if getattr(TABLE[name].kind, "zero", "")]


@pytest.mark.parametrize("name", TABLE)
def test_a_default_is_a_value(name):
    setting = TABLE[name]
    value = setting.kind.parse(setting.default)
    assert value == getattr(DEFAULTS, setting.field)
    assert config.text(value) == setting.default
    assert setting.description[0].isupper()
    assert not setting.description.endswith(".")


@pytest.mark.parametrize("name", NUMBERS)
def test_both_ends_of_a_range(name):
    kind = TABLE[name].kind
    for value in (kind.least, kind.most):
        text = config.text(value)
        kept = config.check({name: f" {text} "})
        assert kept == {name: text}
        assert getattr(config.read(kept), TABLE[name].field) == value
    for text in (f"{kind.least - 1}", f"{kind.most + 1}", "1e2", "+1", "٣", "many", "9" * 20):
        if text == "0" and name in OWN:
            continue
        with pytest.raises(InvalidArgument, match=name) as caught:
            config.check({name: text})
        assert caught.value.metadata == {"field": f"values.{name}"}
        assert kind.range in caught.value.message


@pytest.mark.parametrize("name", OWN)
def test_0_is_the_hosts_own(name):
    assert config.check({name: "0"}) == {name: "0"}


@pytest.mark.parametrize("text", ["../x", "A", "a/b", "x" * 64, "a b", "."])
def test_what_is_no_name_of_an_image(text):
    with pytest.raises(ValueError, match="beginning with"):
        Asset().parse(text)


def test_numbers_have_one_text():
    assert config.check({"capacity.memory_overcommit": "1.500"}) == {
        "capacity.memory_overcommit": "1.5"
    }
    assert config.check({"default.memory_mib": "0256"}) == {"default.memory_mib": "256"}


def test_nothing_takes_the_default_again():
    assert config.check({"default.memory_mib": ""}) == {"default.memory_mib": ""}


def test_an_unknown_name_is_refused():
    with pytest.raises(InvalidArgument, match="no setting has that name"):
        config.check({"default.memory_mib": "256", "nonsense": "1"})


def test_what_another_release_kept_counts_as_not_set():
    values = {"default.memory_mib": "1", "nonsense": "1", "default.vcpu_count": "2"}
    assert config.unfit(values) == ["default.memory_mib", "nonsense"]
    assert config.read(values) == Config(default_vcpu_count=2)
    assert config.told(values)["default.memory_mib"] == "128"
