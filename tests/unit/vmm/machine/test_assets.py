"""Images and kernels by name."""

import pytest
import vmm_guest

from nexus_rpc.errors import NotFound


@pytest.fixture
def assets(tmp_path):
    return vmm_guest.guest_files(tmp_path / "guest")


def test_what_there_is(assets):
    (assets.directory / "images/alpine.img").touch()
    (assets.directory / "images/notes.txt").touch()
    assert assets.images() == ["alpine", "debian"]
    assert assets.kernels() == ["default"]


def test_a_kernel_brings_its_tuning(assets):
    plain = assets.find(vmm_guest.spec()).cmdline
    assert plain == "console=ttyS0 reboot=k panic=1 pci=off"
    (assets.directory / "kernels/default/cmdline").write_text("quiet\n  i8042.noaux\n")
    assert assets.find(vmm_guest.spec()).cmdline == f"{plain} quiet i8042.noaux"


@pytest.mark.parametrize("kind", ["image", "kernel"])
def test_what_is_missing_is_named_with_what_there_is(assets, kind):
    there = {"image": "debian", "kernel": "default"}[kind]
    with pytest.raises(NotFound, match=f"no {kind} 'none'; there is: {there}") as caught:
        assets.find(vmm_guest.spec(**{kind: "none"}))
    assert caught.value.reason == "IMAGE_NOT_FOUND"


def test_an_empty_directory_has_nothing(tmp_path):
    assets = vmm_guest.Assets(tmp_path)
    assert (assets.images(), assets.kernels()) == ([], [])
    with pytest.raises(NotFound, match="there is: none at all"):
        assets.find(vmm_guest.spec())
