"""Opens the labelled images and the zip by their true paths, as if it knew them."""

from support import Search, target

search = Search()
for before in ("", "/.old", "/app/..", "/proc/1/root", "/proc/self/root/..", "/proc/self/cwd/../../.."):
    search.walk(before + target()["data"])
    search.file(before + target()["zip"])
Model = search.model()
