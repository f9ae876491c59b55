"""The lock file names only the public index: anybody can install from it."""

import re
from pathlib import Path

LOCK = Path(__file__).parents[2] / "uv.lock"
HOSTS = {"pypi.org", "files.pythonhosted.org"}


def test_the_lock_file_names_only_the_public_index():
    hosts = set(re.findall(r"https?://([^/\"]+)/", LOCK.read_text()))
    assert hosts <= HOSTS, f"uv.lock names {sorted(hosts - HOSTS)}; lock against the public index"


def test_the_lock_file_names_no_local_path():
    sources = set(re.findall(r"source = \{ (\w+) = ", LOCK.read_text()))
    assert sources <= {"registry", "editable"}, f"uv.lock takes packages from {sorted(sources)}"
