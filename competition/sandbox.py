"""A small world for one program: its folders under /app as on the server, the interpreter, and nothing else to read."""

import functools
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

APP = "/app"  # where Codabench's worker puts the folders
# What an interpreter and its libraries need of a Linux system; no file of a user is among them.
SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime", "/etc/mime.types"),
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/sys/devices/system/cpu"),
)
ROOT = ".root"  # in the stage's parent: where the new root is put together

# Arguments: the new root, the stage, paths to show, "--", paths to hide, "--", the program. Everything that is shown is
# read-only but for the stage, and of the stage what goes in is read-only too. /proc as well: its settings are the
# machine's, and the kernel lets root write them even without capabilities. /dev/shm is as large as Docker makes it.
ENTER = """
set -e
root=$1 stage=$2; shift 2
mount -t tmpfs -o size=16m,mode=755 tmpfs "$root"
while [ "$1" != -- ]; do
  mkdir -p "$root${1%/*}"
  if [ -L "$1" ]; then ln -s "$(readlink "$1")" "$root$1"
  elif [ -d "$1" ]; then mkdir -p "$root$1"; mount --rbind "$1" "$root$1"
  elif [ -e "$1" ]; then : > "$root$1"; mount --bind "$1" "$root$1"
  fi
  shift
done
shift
while [ "$1" != -- ]; do
  if [ -d "$root$1" ]; then mount -t tmpfs -o size=4k tmpfs "$root$1"
  elif [ -e "$root$1" ]; then mount --bind /dev/null "$root$1"
  fi
  shift
done
shift
while read -r _ point _; do
  point=$(printf %b "$point")
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


@dataclass(frozen=True)
class Isolation:
    """What the system allows to take away from a program: the network, and every file that is not its own."""

    network: bool
    files: bool

    def home(self, stage):
        """Where the program finds the folders of `stage`: a path without a slash at its end."""
        return APP if self.files else str(stage)

    def command(self, stage, python, hidden):
        """What to put before the program's own command.

        Args:
            stage: absolute path of the folder that becomes /app; has program, home and tmp.
            python: the interpreter to show.
            hidden: absolute paths that stay hidden even inside of what is shown.
        """
        if not self.network:
            return []
        if not self.files:
            return list(NAMESPACES)
        root = stage.parent / ROOT
        root.mkdir(exist_ok=True)
        shown = [*(path for path in SYSTEM if Path(path).exists()), *interpreter_folders(python)]
        return [*NAMESPACES, "--mount", "sh", "-c", ENTER, "sh", str(root), str(stage), *shown, "--", *map(str, hidden), "--"]


@functools.cache
def interpreter_folders(python):
    """The folders that an interpreter lives in, outside of what every system has: its own and its virtual environment's."""
    code = "import sys, os; print('\\n'.join([sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path]))"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True)
    found = []
    for line in sorted(set(done.stdout.splitlines())):
        if Path(line).is_dir() and not any(Path(line).is_relative_to(other) for other in (*found, *SYSTEM)):
            found.append(line)
    return found


@functools.cache
def isolation(python):
    """Finds out what this system allows, by trying it with an interpreter: `Isolation`."""
    with tempfile.TemporaryDirectory(prefix="isolation-") as folder:
        stage = Path(folder).resolve() / "stage"
        for name in ("program", "home", "tmp"):
            (stage / name).mkdir(parents=True)
        for candidate in (Isolation(True, True), Isolation(True, False)):
            try:
                command = [*candidate.command(stage, python, ()), python, "-I", "-c", ""]
                done = subprocess.run(command, capture_output=True, env={"PATH": os.defpath})
            except OSError:  # no unshare on this system
                continue
            if done.returncode == 0:
                return candidate
    return Isolation(False, False)
