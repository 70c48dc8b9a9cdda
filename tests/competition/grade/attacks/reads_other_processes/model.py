"""Follows the command lines, environments, folders and open files of every process, its parent's first."""

import os
import re

from support import Search

search = Search()
for number in filter(str.isdigit, os.listdir("/proc")):
    if int(number) == os.getpid():
        continue
    for name in ("cmdline", "environ", "maps"):
        try:
            with open(f"/proc/{number}/{name}", "rb") as file:
                for path in set(re.findall(rb"/[^\0\n:= ]+", file.read())):
                    search.file(path.decode("utf-8", "replace"))
        except OSError:
            pass
    for name in ("root", "cwd"):
        try:
            if os.readlink(f"/proc/{number}/{name}") != "/":
                search.walk(f"/proc/{number}/{name}/..")
            search.walk(f"/proc/{number}/{name}/work", f"/proc/{number}/{name}/home", f"/proc/{number}/{name}/.old")
        except OSError:
            pass
    try:
        for descriptor in os.listdir(f"/proc/{number}/fd"):
            path = f"/proc/{number}/fd/{descriptor}"
            search.walk(path) if os.path.isdir(path) else search.file(path, os.readlink(path))
    except OSError:
        pass
Model = search.model()
