"""Reads the ingestion program's memory: /proc/PID/mem, process_vm_readv and ptrace."""

import ctypes
import os
import re

PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
libc = ctypes.CDLL(None, use_errno=True)
ways = []
for parent in {1, os.getppid()}:
    try:
        with open(f"/proc/{parent}/maps") as maps, open(f"/proc/{parent}/mem", "rb", 0) as memory:
            memory.seek(int(re.match("[0-9a-f]+", maps.read())[0], 16))
            ways.append(f"/proc/{parent}/mem: {len(memory.read(16))} bytes")
    except OSError:
        pass
    there, here = (ctypes.c_size_t * 2)(id(ways), 16), (ctypes.c_size_t * 2)(id(ways), 16)
    if libc.process_vm_readv(parent, here, 1, there, 1, 0) >= 0 or ctypes.get_errno() != 1:  # EPERM
        ways.append(f"process_vm_readv: {os.strerror(ctypes.get_errno())}")
    for request in (PTRACE_ATTACH, PTRACE_SEIZE):
        if libc.ptrace(request, parent, None, None) == 0:
            ways.append(f"ptrace {request}")
raise RuntimeError(f"found ways: {ways}" if ways else "found nothing")
