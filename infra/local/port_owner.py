"""Who has a port."""

import psutil


def port_owner(port: int) -> str:
    """The program that listens on a port, in words: as much as this user may see."""
    try:
        listening = [item for item in psutil.net_connections(kind="tcp") if item.status == psutil.CONN_LISTEN]
    except psutil.AccessDenied:
        return "another program (the system doesn't show which one)"
    pids = [item.pid for item in listening if item.laddr and item.laddr.port == port and item.pid]
    if not pids:
        return "a program of another user"
    try:
        process = psutil.Process(pids[0])
        command = " ".join(process.cmdline())[:120] or process.name()
    except psutil.Error:
        return f"process {pids[0]}"
    return f"process {pids[0]} (`{command}`)"
