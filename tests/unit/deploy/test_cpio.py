"""An archive, read back by the rules of the format."""

import stat

from deploy.devhost.cpio import Archive


def read(data):
    """Return name, mode and content of each entry of a newc archive."""
    entries, at = [], 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        at += (110 + name_size + 3) & ~3
        content = data[at : at + size]
        at += (size + 3) & ~3
        if name == "TRAILER!!!":
            assert at == len(data)
            return entries
        entries.append((name, mode, content))


def test_what_goes_in_comes_out():
    archive = Archive()
    archive.folder("bin")
    archive.file("bin/sh", b"12345", 0o755)
    archive.file("odd", b"")
    assert read(archive.finish()) == [
        ("bin", stat.S_IFDIR | 0o755, b""),
        ("bin/sh", stat.S_IFREG | 0o755, b"12345"),
        ("odd", stat.S_IFREG | 0o644, b""),
    ]
