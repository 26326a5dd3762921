"""Loaded by every Python process whose path holds this folder: refuses connections beyond this machine.

The notebook tests put the folder on the kernels' path, so a lesson that opens a connection fails in the cell
that does it. Each attempt is also written to the file named by KTO_NETWORK_LOG, because a library may swallow
the error; the test run ends red if that file is not empty.
"""

import ipaddress
import os
import sys


def is_local(host) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(text.split("%")[0]).is_loopback or text in ("0.0.0.0", "::")
    except ValueError:
        return False


def refuse(event: str, arguments: tuple) -> None:
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return  # not the network, or a socket file of this machine
    if is_local(host):
        return
    log = os.environ.get("KTO_NETWORK_LOG")
    if log:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{event} {host}\n")
    raise ConnectionRefusedError(f"the course works offline, but something asked for {host} ({event})")


sys.addaudithook(refuse)
