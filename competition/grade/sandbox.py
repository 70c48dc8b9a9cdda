"""Isolates one program with Linux namespaces: its stage as /app, the interpreter, and no other file and no network."""

import functools
import os
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

NOT_STARTED = 125  # exit code if the isolation fails before the program starts
APP = "/app"  # where Codabench's worker mounts the folders of a stage
# What an interpreter and its libraries need of a Linux system. No user's files are among them.
SYSTEM_PATHS = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime"),
    *("/etc/mime.types", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/sys/devices/system/cpu"),
)
ROOT = ".root"  # mount point of the new root file system, in the parent of the stage

# Arguments: new root, stage, paths to show, "--", paths to hide, "--", the program with its arguments.
# - Links and single files, which are small, are copied, because each mount takes time.
# - Everything shown is read-only except the stage; of the stage, program and input data are read-only too.
# - /proc is read-only: its settings apply to the whole machine, and root can write them even without capabilities.
# - /dev/shm has Docker's default size.
ENTER_ROOT = """
set -e
trap 'exit 125' EXIT  # until the program starts: what fails before is no fault of its own
root=$1 stage=$2 files=; shift 2
mount -t tmpfs -o size=16m,mode=755 tmpfs "$root"
while [ "$1" != -- ]; do
  if [ -d "$1" ] && [ ! -L "$1" ]; then mkdir -p "$root$1"; mount --rbind "$1" "$root$1"
  else files="$files $1"  # of the system, without spaces
  fi
  shift
done
shift
[ -z "$files" ] || cp -P --parents $files "$root"
while [ "$1" != -- ]; do
  if [ -d "$root$1" ]; then mount -t tmpfs -o size=4k tmpfs "$root$1"
  elif [ -e "$root$1" ]; then mount --bind /dev/null "$root$1"
  fi
  shift
done
shift
while read -r _ point _; do
  case "$point" in *\\\\*) point=$(printf %b "$point"); esac
  case "$point" in "$root"/*) mount -o remount,bind,ro "$point";; esac
done < /proc/self/mounts
cd "$root"
mkdir -p app proc dev/shm .old
[ -e tmp ] || ln -s app/tmp tmp
for device in null zero full random urandom; do : > "dev/$device"; mount --bind "/dev/$device" "dev/$device"; done
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o size=64m,nr_inodes=20k tmpfs dev/shm
mount -t proc -o nosuid,nodev,noexec proc proc
for limit in user/max_user_namespaces kernel/shmmni; do echo 0 > "proc/sys/$limit" || true; done 2>/dev/null
mount -o remount,ro,nosuid,nodev,noexec proc
mount --bind "$stage" app
for part in program input_data input; do
  if [ -d "app/$part" ]; then mount --bind "app/$part" "app/$part"; mount -o remount,bind,ro "app/$part"; fi
done
mount -o remount,bind,ro .
PATH=$PATH:/usr/sbin:/sbin pivot_root . .old
umount -l /.old
cd /app/program
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""

NAMESPACES = ("unshare", "--map-root-user", "--net", "--ipc", "--pid", "--fork", "--kill-child")
PRINT_FOLDERS = """
import sys
print("\\n".join([sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path]))
"""


@dataclass(frozen=True)
class Isolation:
    """What this system can withhold from a program.

    network: True if the program has no network.
    files: True if the program sees only its stage, the interpreter and the system's libraries.
    """

    network: bool
    files: bool

    def home(self, stage: Path) -> str:
        """Returns the path of `stage` as the program sees it, without a trailing slash."""
        return APP if self.files else str(stage)

    def command(self, stage: Path, python: str, hidden: Iterable[Path]) -> list[str]:
        """Returns the command prefix that runs a program in isolation.

        Args:
            stage: absolute path of the folder that becomes /app; contains program, home and tmp.
            python: path of the interpreter.
            hidden: absolute paths that stay hidden, also inside of folders that are shown. A folder that contains the
                interpreter needs no hiding: of it, only what is shown is there.
        """
        if not self.network:
            return []
        if not self.files:
            return list(NAMESPACES)
        root = stage.parent / ROOT
        root.mkdir(exist_ok=True)
        shown = [*(path for path in SYSTEM_PATHS if Path(path).exists()), *interpreter_folders(python)]
        enter = ["--mount", "sh", "-c", ENTER_ROOT, "sh", str(root), str(stage)]
        covered = [str(path) for path in hidden if not any(Path(folder).is_relative_to(path) for folder in shown)]
        return [*NAMESPACES, *enter, *shown, "--", *covered, "--"]


def interpreter_path(python: str | Path) -> str:
    """Returns the absolute path of an interpreter.

    The folder is resolved, the file is not: a virtual environment's interpreter is a link that must be called as such.
    """
    path = Path(python)
    return str(path.parent.resolve() / path.name)


@functools.cache
def interpreter_folders(python: str) -> list[str]:
    """Returns the folders of an interpreter and of its virtual environment that are not among `SYSTEM_PATHS`."""
    done = subprocess.run([python, "-I", "-c", PRINT_FOLDERS], capture_output=True, text=True)
    found: list[str] = []
    for line in sorted(set(done.stdout.splitlines())):
        if Path(line).is_dir() and not any(Path(line).is_relative_to(other) for other in (*found, *SYSTEM_PATHS)):
            found.append(line)
    return found


@functools.cache
def isolation(python: str) -> Isolation:
    """Returns the strongest isolation that works on this system, found by running an empty program with `python`."""
    with tempfile.TemporaryDirectory(prefix="isolation-") as folder:
        stage = Path(folder).resolve() / "stage"
        for name in ("program", "home", "tmp"):
            (stage / name).mkdir(parents=True)
        for candidate in (Isolation(True, True), Isolation(True, False)):
            command = [*candidate.command(stage, python, ()), python, "-I", "-c", ""]
            try:
                done = subprocess.run(command, capture_output=True, env={"PATH": os.defpath})
            except OSError:  # no `unshare` on this system
                continue
            if done.returncode == 0:
                return candidate
    return Isolation(False, False)
