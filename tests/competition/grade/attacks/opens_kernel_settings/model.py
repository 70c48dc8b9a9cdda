"""Opens the kernel's settings for writing, which would have effects outside of the sandbox. Writes nothing."""

import os

names = [
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/drop_caches",
]
for folder, _, files in os.walk("/proc/sys"):
    names += [os.path.join(folder, name) for name in files]
opened = []
for name in names:
    try:
        os.close(os.open(name, os.O_WRONLY))
        opened.append(name)
    except OSError:
        pass
opened = [name for name in opened if not name.startswith(("/proc/sys/user/", "/proc/sys/net/"))]  # its own namespaces'
raise RuntimeError(f"could write to {len(opened)} settings, such as {opened[:4]}" if opened else "found nothing")
