"""Where a store is: a folder, a bucket (s3://) or a zip, from what a user typed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import unquote, urlsplit

from nf2vec_cli.errors import StoreError, UsageFault

ZIP = ".zip"
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


class Place(Protocol):
    """Where a store is, or a thing in it. A folder is a Path, whose words the others share."""

    @property
    def name(self) -> str:
        """Last part, with its suffix."""

    @property
    def stem(self) -> str:
        """Last part, without its suffix."""

    @property
    def suffix(self) -> str:
        """Suffix of the last part, with its dot."""

    def __hash__(self) -> int:
        """Serve as a key."""

    def with_name(self, name: str, /) -> Self:
        """Name what lies beside this."""

    def __truediv__(self, key: str, /) -> Self:
        """Name what lies in this."""

    def exists(self) -> bool:
        """Tell whether something is here."""

    def is_dir(self) -> bool:
        """Tell whether something lies in here."""

    def is_file(self) -> bool:
        """Tell whether this is one file or object."""

    def iterdir(self) -> Iterable[Self]:
        """List what lies directly in this."""

    def read_bytes(self) -> bytes:
        """Read it whole."""


def place(text: str | Place) -> Place:
    """Tell what a user means by a path of a store.

    Args:
        text: a path, `file:///path`, `s3://bucket/prefix`, or a path that ends in .zip; what is a
            place already stays as it is.

    Raises:
        UsageFault: no store can be there, or the address carries a password.
    """
    if not isinstance(text, str | Path):
        return text
    found = SCHEME.match(str(text)) if isinstance(text, str) else None
    if found is None:
        path = Path(text)
        if path.suffix.lower() == ZIP and not path.is_dir():
            from nf2vec_cli.store.archive import Archive

            return Archive(path)
        return path
    scheme, address = found[1].lower(), str(text)
    _refuse_secrets(address)
    if scheme == "file":
        parts = urlsplit(address)
        if parts.netloc not in ("", "localhost"):
            raise UsageFault(f"{address!r} is on another host", hint="`file:///PATH`")
        return place(unquote(parts.path))
    if scheme != "s3":
        raise UsageFault(
            f"no store can be at {scheme}://: {address!r}",
            hint="a folder, `file:///PATH`, `s3://BUCKET/PREFIX`, or a .zip that is read",
        )
    return _bucket(address)


def folder(where: Place | str) -> Path:
    """Give the path of a place that must be on a disk.

    Raises:
        UsageFault: it is in a bucket, or a zip.
    """
    found = place(where)
    if not isinstance(found, Path):
        raise UsageFault(
            f"{found} is no folder, and this needs one",
            hint=f"`nf2vec copy {found} {found.stem}` makes one",
        )
    return found


def local(text: str) -> Path:
    """Take the path of files to write, which is on a disk.

    Raises:
        UsageFault: it is an address.
    """
    if SCHEME.match(text):
        _refuse_secrets(text)
        raise UsageFault(f"{text!r} is no path on a disk, and files are written to one")
    return Path(text)


def writable(where: Place) -> None:
    """Refuse a place that is only read.

    Raises:
        StoreError: it is a zip.
    """
    from nf2vec_cli.store.archive import Archive

    if isinstance(where, Archive):
        raise StoreError(
            f"{where} is a zip, which is only read",
            hint=f"`nf2vec copy {where} {where.with_name(where.stem)}` unpacks it to write there",
        )


def beside(where: Place, ending: str) -> Path:
    """Give the folder for what is kept on a disk beside a store: NAME.ending.

    Of a bucket or a zip it is in the user's cache ($XDG_CACHE_HOME, else ~/.cache), and may be
    deleted.
    """
    if isinstance(where, Path):
        return where.with_suffix(ending)
    cache = os.environ.get("XDG_CACHE_HOME")
    home = Path(cache) if cache else Path.home() / ".cache"
    mark = sha256(str(where).encode()).hexdigest()[:12]
    return home / "nf2vec" / f"{where.stem}-{mark}{ending}"


def open_zarr(where: Place, *, read_only: bool) -> tuple[Any, str]:
    """Open a place for Zarr: its store, and the path of the group in it.

    Raises:
        StoreError: a zip is to be written.
    """
    from nf2vec_cli.store.archive import Archive
    from nf2vec_cli.store.bucket import Bucket

    if not read_only:
        writable(where)
    if isinstance(where, Archive):
        return where.zarr()
    if isinstance(where, Bucket):
        from nf2vec_cli.store.bucket_store import open_bucket

        return open_bucket(where, read_only=read_only), ""
    from nf2vec_cli.store.durable import DurableStore

    return DurableStore(Path(str(where)), read_only=read_only), ""


def absolute(where: Place) -> Place:
    """Name a place so that a process in another folder finds it too."""
    from nf2vec_cli.store.archive import Archive

    if isinstance(where, Archive):
        return Archive(where.file.absolute(), where.key)
    return where.absolute() if isinstance(where, Path) else where


def same(one: Place, other: Place) -> bool:
    """Tell whether two places are one."""
    if isinstance(one, Path) and isinstance(other, Path):
        return one.resolve() == other.resolve()
    return str(one) == str(other)


def sizes(where: Place) -> Iterator[tuple[str, int]]:
    """List the files or objects of a store: their keys in it, and bytes."""
    from nf2vec_cli.store.archive import Archive
    from nf2vec_cli.store.bucket import Bucket

    if isinstance(where, Bucket):
        yield from ((key, stat.size) for key, stat in where.walk().items())
    elif isinstance(where, Archive):
        yield from where.sizes()
    else:
        folders = [""]
        while folders:
            within = folders.pop()
            with os.scandir(Path(str(where), within)) as inside:
                for entry in inside:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{within}{entry.name}/")
                    else:
                        yield f"{within}{entry.name}", entry.stat().st_size


def _bucket(address: str) -> Place:
    from nf2vec_cli.store.bucket import Bucket

    bucket, _, key = address.partition("://")[2].partition("/")
    parts = [part for part in key.split("/") if part]
    if not bucket or not parts:
        raise UsageFault(
            f"{address!r} names no folder of a bucket", hint="`s3://BUCKET/PREFIX/ds.zarr`"
        )
    if {".", ".."} & set(parts):
        raise UsageFault(f"{address!r} has a part . or .., which a bucket does not know")
    if parts[-1].lower().endswith(ZIP):
        raise UsageFault(
            f"{address!r} is a zip in a bucket, and a zip is read from a disk",
            hint="download it, or `nf2vec copy` the store itself to the bucket",
        )
    return Bucket(bucket, "/".join(parts))


def _refuse_secrets(address: str) -> None:
    """Refuse an address with a user or a password, without saying them."""
    scheme, _, rest = address.partition("://")
    before, at, host = rest.partition("/")[0].rpartition("@")
    if at and before:
        raise UsageFault(
            f"the address {scheme}://***@{host} carries a name or a password",
            hint="credentials come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
        )
