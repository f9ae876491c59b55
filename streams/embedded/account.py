"""Whom PostgreSQL runs as, since it refuses root, and where that account can keep its data."""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from streams.embedded.directory import DataDirectoryRefused

SYSTEM_HOME = Path("/var/lib/agentcore")  # every account may pass, and it outlives a reboot
UNPRIVILEGED = "nobody"  # exists on every system, owns nothing


@dataclass(frozen=True)
class Account:
    """A user and its group, to whom a child process is handed over."""

    uid: int
    gid: int


def server_account() -> Account | None:
    """The unprivileged account when this process is root; None means: as ourselves."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(UNPRIVILEGED)
    return Account(entry.pw_uid, entry.pw_gid)


def reachable(path: Path) -> bool:
    """Whether every account may run this file, or enter this directory, through all above it."""
    return all(p.stat().st_mode & stat.S_IXOTH for p in (path, *path.parents))


def settle(directory: Path, account: Account | None) -> Path:
    """Makes a directory for this account: in place, or as a link to one that it can reach.

    The other place is needed when root keeps its data below a directory that is closed to others,
    as /root is. The link is the only record of it: deleting the data directory leaves it behind.
    """
    if directory.is_symlink() and not directory.exists():
        gone = directory.readlink()
        raise DataDirectoryRefused(f"{directory} leads to {gone}, which is gone; delete the link")
    if not directory.exists():
        if account is None or reachable(directory.parent):
            directory.mkdir(mode=0o700)
        else:
            SYSTEM_HOME.mkdir(parents=True, exist_ok=True)
            SYSTEM_HOME.chmod(SYSTEM_HOME.stat().st_mode | 0o111)  # the umask may have closed it
            directory.symlink_to(tempfile.mkdtemp(prefix=f"{directory.name}-", dir=SYSTEM_HOME))
    home = directory.resolve()
    if account is not None and home.stat().st_uid == 0:
        os.chown(home, account.uid, account.gid)
    return home
