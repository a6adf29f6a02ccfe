"""The runtime drive: the agent with an interpreter of its own, for guests of any distribution."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from deploy.command import Failure, run
from deploy.guest import packages
from deploy.guest.initramfs import BUSYBOX

AGENT = Path(__file__).resolve().parents[2] / "services/agent-gateway/guest/nexus_guest"
SCRIPT = Path(__file__).with_name("boot") / "init"
PACK = Path(__file__).with_name("pack")

PACKAGES = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
    *("libc6", "zlib1g", "libexpat1"),
    *("e2fsprogs", "libext2fs2", "libcom-err2", "libblkid1", "libuuid1", "libss2"),
)
_PROGRAMS = ("usr/bin/python3.11", "sbin/mke2fs", "sbin/resize2fs")
_LOADER = "lib64/ld-linux-x86-64.so.2"

# Imported by the interpreter as it goes, or only when something fails.
_EXTRA_MODULES = (
    *("encodings.ascii", "encodings.latin_1", "encodings.idna", "encodings.utf_8"),
    *("traceback", "linecache", "tokenize"),
)

# Prints the file of each module that the agent imports, in the interpreter that it will have.
_LIST = """
import importlib, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
sys.path.insert(0, sys.argv[1])
import nexus_guest.__main__, nexus_guest.machine, nexus_guest.mcp, nexus_guest.streams
for name, module in sorted(sys.modules.items()):
    if getattr(module, "__file__", None):
        print(name, module.__file__)
"""


def build(found: list[str], target: Path) -> None:
    """Make `runtime.img` in `target` from the packages `found`, an ext4 to be mounted read-only."""
    with tempfile.TemporaryDirectory(dir=target) as folder:
        debian, tree = Path(folder) / "debian", Path(folder) / "tree"
        packages.unpack(found, debian)
        fill(debian, tree)
        run([PACK, tree, target / "runtime.img", "nexus"])


def fill(debian: Path, tree: Path) -> None:
    """Fill `tree` from the unpacked packages: `bin`, `lib` with the libraries, the modules."""
    for name in ("bin", "lib/python3.11/lib-dynload"):
        (tree / name).mkdir(parents=True)
    for program in _PROGRAMS:
        shutil.copy(debian / program, tree / "bin")
    shutil.copy(BUSYBOX, tree / "bin/busybox")
    shutil.copy(SCRIPT, tree / "bin/init")
    (tree / "bin/init").chmod(0o755)
    shutil.copy((debian / _LOADER).resolve(), tree / "lib/ld-linux-x86-64.so.2")
    modules = _modules(debian)
    for file, name in modules:
        to = tree / "lib/python3.11" / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to)
    shutil.copytree(AGENT, tree / "lib/python3.11/nexus_guest", ignore=_not_code)
    (tree / "lib/agent.py").write_text(
        "import sys\nfrom nexus_guest.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    _libraries(debian, tree)
    _compile(debian, tree)


def _not_code(_: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".py")]


def _run_python(debian: Path, *arguments: str | Path) -> str:
    """Run the unpacked interpreter with the unpacked library."""
    libraries = debian / "usr/lib/x86_64-linux-gnu", debian / "lib/x86_64-linux-gnu"
    return run(
        [
            *(debian / _LOADER, "--library-path", ":".join(map(str, libraries))),
            *(debian / "usr/bin/python3.11", "-I", "-S", "-B", *arguments),
        ]
    )


def _modules(debian: Path) -> list[tuple[Path, str]]:
    """Return what is to be in `lib/python3.11`: files, and their names there."""
    shown = _run_python(debian, "-c", _LIST, AGENT.parent, *_EXTRA_MODULES)
    library = debian / "usr/lib/python3.11"
    found = [(library / "os.py", "os.py")]
    for line in shown.splitlines():
        file = Path(line.split(maxsplit=1)[1])
        if file.is_relative_to(AGENT):
            continue
        if not file.is_relative_to(library):
            raise Failure(f"the agent imports {file}, which is not of {library}")
        found.append((file, str(file.relative_to(library))))
    return found


def _libraries(debian: Path, tree: Path) -> None:
    """Copy the shared libraries that programs and modules name, and those that these name."""
    wanted = [path for path in tree.rglob("*") if path.is_file() and _is_elf(path)]
    while wanted:
        shown = run(["readelf", "--dynamic", wanted.pop()])
        for name in re.findall(r"\(NEEDED\).*\[(.+)\]", shown):
            to = tree / "lib" / name
            if to.exists():
                continue
            for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"):
                if (debian / folder / name).exists():
                    shutil.copy((debian / folder / name).resolve(), to)
                    wanted.append(to)
                    break
            else:
                raise Failure(f"no package of {', '.join(PACKAGES)} has {name}")


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _compile(debian: Path, tree: Path) -> None:
    """Replace sources by bytecode: nothing is looked up or checked at the import."""
    code = (
        "import py_compile, sys\n"
        "mode = py_compile.PycInvalidationMode.UNCHECKED_HASH\n"
        "for path in sys.argv[2:]:\n"
        "    shown = '/.nexus' + path.removeprefix(sys.argv[1])\n"
        "    py_compile.compile(path, path + 'c', shown, True, 1, mode)\n"
    )
    sources = sorted(tree.rglob("*.py"))
    _run_python(debian, "-c", code, tree, *sources)
    for source in sources:
        source.unlink()
