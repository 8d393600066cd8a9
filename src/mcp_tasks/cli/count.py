"""The demo's own count of the folder: what the tool should have found, without any of its code."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from pathlib import Path


_LEFT_OUT = (".git", "__pycache__", "site-packages")


@dataclass(frozen=True)
class Count:
    """What lies in a folder; the fields of the tool's answer of the same names."""

    files: int
    bytes: int
    sha256: str
    copies: int
    duplicates: list[list[str]]


def count(folder: Path) -> Count:
    """Count what lies in `folder`, with `os.walk` and `hashlib` alone."""
    found: list[tuple[str, int, str]] = []
    for place, folders, names in os.walk(folder):
        for name in _LEFT_OUT:
            if name in folders:
                folders.remove(name)
        for name in names:
            path = os.path.join(place, name)  # noqa: PTH118 - other code than the tool's, on purpose
            shown = os.path.relpath(path, folder).replace(os.sep, "/")
            if os.path.islink(path) or not os.path.isfile(path) or not shown.isprintable():  # noqa: PTH113, PTH114
                continue
            try:
                with open(path, "rb") as file:  # noqa: PTH123
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    found.append((shown, file.tell(), digest))
            except OSError:
                continue
    found.sort()
    whole = hashlib.sha256()
    for shown, size, digest in found:
        whole.update(f"{digest}  {size}  {shown}\n".encode())
    often = Counter(digest for _, _, digest in found)
    groups: dict[str, list[str]] = {digest: [] for digest, times in often.items() if times > 1}
    for shown, _, digest in found:
        if digest in groups:
            groups[digest].append(shown)
    return Count(
        files=len(found),
        bytes=sum(size for _, size, _ in found),
        sha256=whole.hexdigest(),
        copies=sum(times - 1 for times in often.values()),
        duplicates=sorted(groups.values()),
    )
