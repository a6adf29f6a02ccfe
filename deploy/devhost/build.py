"""Builds the dev host, stage by stage; what did not change is not built again."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from deploy.command import run
from deploy.devhost.base import base_key, build_base
from deploy.devhost.identity import client_config, make_identity
from deploy.devhost.kernel import build_initrd
from deploy.devhost.layout import REPO, Layout
from deploy.devhost.tree import make_tree
from deploy.stages import digest, stage, stamp

_ROOT_SIZE = "4G"
_DATA_SIZE = "32G"
"""Both disks are sparse files: they take the space that is used."""

_GUEST = ("bin", "host", "images", "kernels", "runtime.img")
_DOCS = ("docs/architecture.md", "docs/security.md")
_SOURCES = ("protos", "services", "cli", "deploy", *_DOCS, "requirements.lock")


def build(layout: Layout) -> None:
    """Build what is not there: base, identity, image, data disk, client config."""
    home = layout.home
    home.mkdir(parents=True, exist_ok=True)
    # The images hold the machine's keys and token, and all that its guests wrote.
    home.chmod(0o700)
    base = stage(home, "base", digest([], *base_key()), lambda at: build_base(at / "base.tar"))
    identity = stage(
        home, "identity", digest([Path(__file__).with_name("identity.py")]), make_identity
    )
    sources = [REPO / name for name in _SOURCES]
    image = stage(
        home,
        "image",
        digest(sources, base.name, identity.name, stamp(layout.guest / name for name in _GUEST)),
        lambda at: _build_image(at, layout, base, identity),
    )
    links = {layout.image: image, layout.ssh: identity / "ssh", layout.tls: identity / "tls"}
    for link, folder in links.items():
        link.unlink(missing_ok=True)
        link.symlink_to(folder.relative_to(home))
    layout.client.write_text(client_config(layout.tls), encoding="utf-8")
    if not layout.data.exists():
        fresh = layout.data.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-L", "nexus-data", fresh, _DATA_SIZE])
        fresh.rename(layout.data)


def _build_image(at: Path, layout: Layout, base: Path, identity: Path) -> None:
    kernel = layout.guest / "host"
    (modules,) = (kernel / "lib/modules").iterdir()
    shutil.copyfile(kernel / "vmlinuz", at / "vmlinuz")
    (at / "initrd").write_bytes(build_initrd(modules))
    with tempfile.TemporaryDirectory(dir=at) as folder:
        tree = Path(folder)
        tree.chmod(0o755)
        make_tree(tree, base / "base.tar", modules, layout.guest, identity)
        run(
            [
                "mke2fs",
                "-q",
                "-t",
                "ext4",
                "-L",
                "nexus-root",
                "-d",
                tree,
                at / "root.img",
                _ROOT_SIZE,
            ]
        )
