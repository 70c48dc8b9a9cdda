"""Creates and opens device files, to read the system's disks and memory."""

import os
import stat

opened = []
names = [
    "/dev/mem",
    "/dev/kmem",
    "/dev/port",
    "/dev/sda",
    "/dev/vda",
    "/proc/kcore",
    "/proc/kmsg",
    "/dev/kmsg",
    "/dev/fuse",
]
with open("/proc/partitions") as file:
    numbers = [line.split()[:2] for line in file.read().splitlines()[2:]]
for count, (major, minor) in enumerate(numbers):
    name = f"/app/tmp/disk{count}"
    try:
        os.mknod(name, 0o600 | stat.S_IFBLK, os.makedev(int(major), int(minor)))
        names.append(name)
    except OSError:
        pass
for name in names:
    try:
        os.close(os.open(name, os.O_RDONLY))
        opened.append(name)
    except OSError:
        pass
raise RuntimeError(f"opened {opened}" if opened else "found nothing")
