"""Connects to sockets that need no network: one with a name without a file, one with a file."""

import socket

from support import target

connected = []
for address in ("\0" + target()["abstract"], target()["socket"], "/var/run/docker.sock", "/run/dbus/system_bus_socket"):
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(address)
            connected.append(address)
    except OSError:
        pass
raise RuntimeError(f"connected to {connected}" if connected else "found nothing")
