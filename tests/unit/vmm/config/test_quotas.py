import pytest

from nexus_vmm.config.quotas import MOST, Quota, QuotaList, Quotas

parse = QuotaList().parse


def test_each_form_is_read_and_told_in_one():
    found = parse(
        " team=blue:memory_mib=4096,vms = 10 ;owner=user: bob; x: disk_mib=0; a= : vcpus=8;"
    )
    assert found == (
        Quota("team", "blue", (("memory_mib", 4096), ("vms", 10))),
        Quota("owner", "user: bob; x", (("disk_mib", 0),)),
        Quota("a", " ", (("vcpus", 8),)),
    )
    assert str(found) == (
        "team=blue: memory_mib=4096, vms=10; owner=user: bob; x: disk_mib=0; a= : vcpus=8"
    )
    assert parse(str(found)) == found


def test_no_text_is_no_quota():
    assert parse("") == Quotas()
    assert str(Quotas()) == ""


@pytest.mark.parametrize(
    "text",
    [
        "team",
        "team=blue",
        "team=blue:",
        "team=blue: cpus=1",
        "team=blue: vms=-1",
        "team=blue: vms=1 vcpus=2",
        "team=blue: vms=1, vms=2",
        "team=blue: vms=1; team=blue: vcpus=1",
        "Team=blue: vms=1",
        "team=bläu: vms=1",
        "team=blue: vms=1;;",
        "team=blue: vms=12345678901",
        f"team={'x' * 64}: vms=1",
        "team=blue: vms=1" + " " * 20_000,
        "; ".join(f"team=t{number}: vms=1" for number in range(MOST + 1)),
    ],
)
def test_what_is_no_list_of_quotas(text):
    with pytest.raises(ValueError, match=r"at most|each limit once"):
        parse(text)


def test_the_most_that_there_can_be():
    text = "; ".join(f"team=t{number}: vms=1" for number in range(MOST))
    assert len(parse(text)) == MOST
