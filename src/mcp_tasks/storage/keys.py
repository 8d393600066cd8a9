"""Keys: how owners and ids become `partition:sort`, so that no owner reaches another's records.

Every part that comes from outside is percent-encoded to letters, digits, `-`, `_` and `.`; so `:`,
`/`, `@` and `~` are ours alone:

- `:` separates partition from sort, exactly once,
- `/` ends the namespace, which stands in front of every partition,
- `@` begins a partition of our own (`@workers`, `@blobs.<owner>` …),
- `~` begins a part that was too long and stands for its SHA-256, and joins the numbers of index
  entries to their ids.

A part of more than 200 bytes once encoded becomes `~` and the base32 of its SHA-256. The record
holds the whole owner, and a read compares it.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from urllib.parse import quote

from mcp_tasks.errors import InvalidKeyError


MAX_PART_BYTES = 200
MAX_KEY_BYTES = 900  # DynamoDB: 2,048 for the partition, 1,024 for the sort key
_NO_TEXT = "a lone surrogate is no text"


@lru_cache(maxsize=4096)
def encode(part: str) -> str:
    """Encode one part of a key. Distinct parts stay distinct; the empty part becomes `~`."""
    if not part:
        return "~"
    # `quote` leaves `~` alone, which is ours. "surrogatepass": any text has a key, broken too.
    encoded = quote(part, safe="", errors="surrogatepass").replace("~", "%7E")
    if len(encoded) <= MAX_PART_BYTES:
        return encoded
    digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).digest()
    return "~" + base64.b32encode(digest).decode("ascii").rstrip("=").lower()


def split(key: str) -> tuple[str, str]:
    """Take a key apart into partition and sort.

    Raises:
        InvalidKeyError: Not exactly one colon, an empty partition or sort, too long, or no text
            (a lone surrogate).
    """
    partition, colon, sort = key.partition(":")
    if not colon:
        raise InvalidKeyError(key, "no ':' between partition and sort")
    if ":" in sort:
        raise InvalidKeyError(key, "more than one ':'")
    if not partition or not sort:
        raise InvalidKeyError(key, "an empty partition or sort")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidKeyError(key, _NO_TEXT) from None
    if size > MAX_KEY_BYTES:
        raise InvalidKeyError(key, f"longer than {MAX_KEY_BYTES} bytes")
    return partition, sort


def split_prefix(prefix: str) -> tuple[str, str]:
    """Take a listing prefix apart into the whole partition and the begin of the sort (or "").

    Raises:
        InvalidKeyError: Not exactly one colon, an empty partition, or no text.
    """
    partition, colon, sort = prefix.partition(":")
    if not colon or not partition or ":" in sort:
        raise InvalidKeyError(prefix, "a prefix is 'partition:' or 'partition:begin-of-sort'")
    try:
        prefix.encode()
    except UnicodeEncodeError:
        raise InvalidKeyError(prefix, _NO_TEXT) from None
    return partition, sort


class Keys:
    """The keys of one namespace.

    Args:
        namespace: Whose tasks these are, when several applications share a database; empty for
            none. Part of every key.
    """

    def __init__(self, namespace: str = "") -> None:
        self.namespace = namespace
        self._front = f"{encode(namespace)}/" if namespace else ""

    def task(self, owner: str, task_id: str) -> str:
        """Where the record of a task lies."""
        return f"{self._front}{encode(owner)}:{encode(task_id)}"

    def tasks(self, owner: str) -> str:
        """The prefix of all tasks of `owner`."""
        return f"{self._front}{encode(owner)}:"

    def blob(self, owner: str, task_id: str, name: str, chunk: int) -> str:
        """Where one chunk of a payload lies."""
        return f"{self._front}@blobs.{encode(owner)}:{encode(task_id)}.{name}.{chunk:05d}"

    def blobs(self, owner: str, task_id: str) -> str:
        """The prefix of all payload chunks of a task."""
        return f"{self._front}@blobs.{encode(owner)}:{encode(task_id)}."

    def values(self, owner: str) -> str:
        """The prefix of all payload chunks of an owner."""
        return f"{self._front}@blobs.{encode(owner)}:"

    def rosters(self, owner: str) -> str:
        """The prefix of all blocks of an owner's roster."""
        return f"{self._front}@rosters:{encode(owner)}~"

    def roster(self, owner: str, block: int) -> str:
        """Where a block of the ids of an owner's active tasks lies."""
        return f"{self._front}@rosters:{encode(owner)}~{block:03d}"

    def use(self, owner: str, digest: str) -> str:
        """Where it stands which task an idempotency key stands for; `digest` is of tool and key."""
        return f"{self._front}@keys.{encode(owner)}:{digest}"

    def uses(self, owner: str) -> str:
        """The prefix of all uses of idempotency keys of `owner`."""
        return f"{self._front}@keys.{encode(owner)}:"

    def worker(self, worker: str) -> str:
        """Where the record of a worker lies."""
        return f"{self._front}@workers:{worker}"

    def workers(self) -> str:
        """The prefix of all workers."""
        return f"{self._front}@workers:"

    def sheet(self, worker: str, block: int) -> str:
        """Where a block of the run sheet of a worker lies."""
        return f"{self._front}@runs.{worker}:{block:05d}"

    def sheets(self, worker: str) -> str:
        """The prefix of a worker's run sheet."""
        return f"{self._front}@runs.{worker}:"

    def ready(self, task_id: str, attempt: int) -> str:
        """Where it stands that any worker may run this attempt."""
        return f"{self._front}@ready:{task_id}~{attempt}"

    def readies(self) -> str:
        """The prefix of all tasks that any worker may run."""
        return f"{self._front}@ready:"

    def inbox(self, worker: str, task_id: str, version: int) -> str:
        """Where word for a worker lies: the record of this task has news from `version` on."""
        return f"{self._front}@inbox.{worker}:{task_id}~{version}"

    def inboxes(self, worker: str) -> str:
        """The prefix of a worker's inbox."""
        return f"{self._front}@inbox.{worker}:"

    def config(self, name: str) -> str:
        """Where a setting shared by all processes of the namespace lies."""
        return f"{self._front}@config:{name}"

    @staticmethod
    def entry(key: str) -> tuple[str, int]:
        """Take the sort of a ready or inbox entry apart: task id, and attempt or version."""
        task_id, _, number = key.partition(":")[2].rpartition("~")
        return task_id, int(number)
