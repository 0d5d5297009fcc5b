"""Runs a command for as long as the process that began this one says so. A program by itself, run by `tethered.py`.

    tether.py FD COMMAND...

Lines of FD: until when the command may run, in seconds of CLOCK_MONOTONIC, which all processes of a machine share.
At that time, and when nobody can write to FD any more, this process and its whole process group are killed: the
command and its children. So a command does not outlive a controller that dies or hangs.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

NOT_BEGUN = 126
"""Exit code where the command cannot be run. After MARK, standard error has the number of the reason (errno)."""
MARK = "sterna-tether: "


def main(fd: int, argv: list[str]) -> int:
    """The command's exit code."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    until_s = _said(fd)
    try:
        command = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=dict(os.environ))  # as it was begun
    except OSError as error:
        print(f"{MARK}{error.errno}", file=sys.stderr)
        return NOT_BEGUN
    ended = os.pidfd_open(command.pid)
    while (left_s := until_s - time.monotonic()) > 0:
        ready, _, _ = select.select([fd, ended], [], [], left_s)
        if ended in ready:
            return _as_it_ended(command.wait())
        if fd in ready:
            until_s = _said(fd)
    os.killpg(0, signal.SIGKILL)
    return NOT_BEGUN  # not reached: this process is in the group


def _said(fd: int) -> float:
    """The last of what has been written. A line is written at once, or not at all; none: nobody can any more."""
    lines = os.read(fd, 65536).splitlines()
    return float(lines[-1]) if lines else float("-inf")


def _as_it_ended(code: int) -> int:
    """This process ends by the same signal."""
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
