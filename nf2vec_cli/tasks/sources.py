"""Where the sources of a store's objects are now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store.store import Store

LONGEST = 250  # bytes of a name that file systems take, less those of ".part"


def roots_of(store: Store) -> tuple[Path, ...]:
    """Folders that past runs read from, the latest first."""
    found = [
        root for run in reversed(store.runs()) for root in run.get("summary", {}).get("roots", ())
    ]
    return tuple(Path(root) for root in dict.fromkeys(found))


def sources_of(roots: Sequence[Path], name: str) -> tuple[Path, ...]:
    """Say where an object's source may be; what was generated has none."""
    return tuple(inside(root, name) for root in roots) if name else ()


def file_of(folder: Path, name: str, suffix: str) -> Path:
    """Name the file that an object of a store is written to; `inside` the folder.

    Raises:
        StoreError: its id is no name for a file, as that of a damaged store.
    """
    parts = f"{name}{suffix}".split("/")
    if not name or max(len(part.encode("utf-8", "surrogatepass")) for part in parts) > LONGEST:
        raise StoreError(f"the id {name[:80]!r} in the store is no name for a file")
    return inside(folder, f"{name}{suffix}")


def inside(folder: Path, name: str) -> Path:
    """Join a name from a store to a folder; it must stay in there.

    Raises:
        StoreError: the name is absolute or climbs out.
    """
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
        raise StoreError(f"{name!r} in the store is no path inside a folder")
    joined = folder.joinpath(*parts)
    if not joined.resolve().is_relative_to(folder.resolve()):
        raise StoreError(f"{name!r} leads out of {folder} by a link")
    return joined
