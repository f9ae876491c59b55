"""From the id of an aggregate to its partition, and from a partition to its Redis keys.

CRC-32 as in zlib, so that any language can publish to the right stream. The hash tags in the keys
keep a partition's streams together on Redis Cluster.
"""

from zlib import crc32

PARTITIONS_DEFAULT = 16
PARTITIONS_MAX = 4096

COMMANDS_INBOX = "commands"
"""The stream for publishers that cannot compute a partition."""

HOSTS = "hosts"
"""The hash of live hosts: name -> {"beat": n, "running": {agent id: n}}."""

HOSTS_CARDS = "hosts:cards"
"""The hash of what hosts serve: name -> [{"id", "tenant", "roles", "capabilities", …}]."""

DEAD_LETTERS = "dead-letters"
"""The bounded stream of what hosts could not handle, until the engine has stored it."""

FIELD = b"message"
"""The one field of every stream entry."""


def partition_of(root: str, partitions: int) -> int:
    """The partition that owns everything about the aggregate with the id `root`."""
    return crc32(root.encode()) % partitions


def commands_key(partition: int) -> str:
    """The stream of commands waiting for a partition."""
    return f"commands:{{{partition}}}"


def events_key(partition: int) -> str:
    """The stream that mirrors a partition's tail; ids are `<position>-0`."""
    return f"events:{{{partition}}}"


def tasks_key(tenant: str, role: str) -> str:
    """The stream from which the agents of one role pull their tasks."""
    return f"tasks:{{{tenant}/{role}}}"


def pushed_key(host: str) -> str:
    """The stream of the tasks that were given to one agent of a host by name."""
    return f"tasks:@{{{host}}}"


def withdrawn_channel(tenant: str, role: str) -> str:
    """Where the message ids of a role's tasks are published whose answers nobody wants any more."""
    return f"withdrawn:{{{tenant}/{role}}}"


def gate_channel(host: str) -> str:
    """Where a host is told which of its agents get no work for now, and which do again."""
    return f"agents:@{{{host}}}"
