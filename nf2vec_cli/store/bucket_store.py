"""A folder of a bucket as a Zarr store: calls that fail are made again, writes ask for the lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from nf2vec_cli.store.bucket import PART, Bucket, Patience, client
from nf2vec_cli.store.bucket_lock import guard

T = TypeVar("T")


class BucketStore(ObjectStore[Any]):
    """zarr's store by obstore. An object appears whole or not at all, so nothing is renamed."""

    def __init__(self, store: Any, *, read_only: bool = False, home: Bucket | None = None) -> None:
        super().__init__(store, read_only=read_only)
        self.home = home

    def with_read_only(self, read_only: bool = False) -> BucketStore:
        """Give the same store, to read only or to write as well."""
        return type(self)(self.store, read_only=read_only, home=self.home)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read an object, or a part of it."""
        return await self._calm(lambda: super(BucketStore, self).get(key, prototype, byte_range))

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Read parts of objects."""
        return await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))

    async def exists(self, key: str) -> bool:
        """Tell whether there is an object."""
        return await self._calm(lambda: super(BucketStore, self).exists(key))

    async def set(self, key: str, value: Buffer) -> None:
        """Put an object, if the lock is still held."""
        import obstore

        self._check_writable()
        self._guard()
        data = value.as_buffer_like()
        await self._calm(lambda: obstore.put_async(self.store, key, data, chunk_size=PART))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Put an object where there is none."""
        self._guard()
        await self._calm(lambda: super(BucketStore, self).set_if_not_exists(key, value))

    async def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        self._guard()
        await self._calm(lambda: super(BucketStore, self).delete(key))

    async def delete_dir(self, prefix: str) -> None:
        """Delete all objects below, the metadata first: half of it would still look whole."""
        below = f"{prefix.rstrip('/')}/" if prefix else ""
        found = [key async for key in self.list_prefix(below)]
        for key in sorted(found, key=lambda key: (not key.endswith("zarr.json"), key.count("/"))):
            await self.delete(key)

    async def list(self) -> AsyncGenerator[str, None]:
        """List all objects."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """List the objects below, in one piece: a listing that breaks off is made again."""
        import obstore

        found = await self._calm(
            lambda: obstore.list(self.store, prefix=prefix or None).collect_async()
        )
        for one in found:
            yield one["path"]

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """List the names directly below."""

        async def names() -> list[str]:
            return [name async for name in super(BucketStore, self).list_dir(prefix)]

        for name in await self._calm(names):
            yield name

    async def getsize(self, key: str) -> int:
        """Ask for an object's size."""
        return await self._calm(lambda: super(BucketStore, self).getsize(key))

    async def _calm(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do as `bucket.calm`, without holding up other calls."""
        patience = Patience(self._name)
        while True:
            try:
                return await call()
            except Exception as error:
                pause = patience.pause(error)
            await asyncio.sleep(pause)

    def _guard(self) -> None:
        if self.home is not None:
            guard(self.home)

    @property
    def _name(self) -> str:
        return self.home.bucket if self.home else "?"


def open_bucket(home: Bucket, *, read_only: bool) -> BucketStore:
    """Open a folder of a bucket for Zarr."""
    return BucketStore(client(home.bucket, home.key), read_only=read_only, home=home)
