"""A folder of objects in a bucket, by obstore (extra `s3`); credentials from the environment."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeVar

from nf2vec_cli.errors import BucketError, Nf2vecError, UsageFault

T = TypeVar("T")

# A call is tried again by obstore, and all of that again by `calm`, for it alone knows that each
# of our calls may be done twice: uploads that timed out, bodies that ended too soon.
RETRIES, FIRST_PAUSE, LONGEST_PAUSE = 6, 0.1, 5.0
PATIENCE = 120.0  # seconds after which no call is tried again
TRIES = 6  # of `calm`, each with its own RETRIES
CONNECT, ANSWER = 5, 30  # seconds: until a connection is there, until a request is done
PART = 8 << 20  # bytes: larger objects are sent in parts, and appear when all are there
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SKIP_SIGNATURE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN", "AWS_ACCESS_KEY_ID")


class Stat(NamedTuple):
    """What a bucket says of an object."""

    size: int
    tag: str  # its ETag: another for other content
    changed: datetime  # by the bucket's clock


class Bucket:
    """A key of a bucket: a folder, or one object. Speaks like a Path."""

    def __init__(self, bucket: str, key: str) -> None:
        self.bucket, self.key = bucket, key

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def __repr__(self) -> str:
        return f"Bucket({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bucket) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def name(self) -> str:
        """Last part of the key."""
        return PurePosixPath(self.key).name

    @property
    def stem(self) -> str:
        """Last part of the key, without its suffix."""
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        """Suffix of the last part."""
        return PurePosixPath(self.key).suffix

    def with_name(self, name: str, /) -> Bucket:
        """Name what lies beside this."""
        return Bucket(self.bucket, str(PurePosixPath(self.key).with_name(name)))

    def __truediv__(self, key: str, /) -> Bucket:
        return Bucket(self.bucket, f"{self.key}/{key}")

    def exists(self) -> bool:
        """Tell whether an object is here, or below."""
        return self.is_dir() or self.is_file()

    def is_dir(self) -> bool:
        """Tell whether an object is below this."""

        def first() -> bool:
            stream = _obstore().list(client(self.bucket), self.key, chunk_size=1)
            return next(iter(stream), None) is not None

        return calm(self.bucket, first)

    def is_file(self) -> bool:
        """Tell whether this is an object."""
        return self.stat() is not None

    def iterdir(self) -> Iterator[Bucket]:
        """List what lies directly below."""

        def listed() -> Any:
            return _obstore().list_with_delimiter(client(self.bucket), self.key)

        found = calm(self.bucket, listed)
        keys = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
        return iter([Bucket(self.bucket, key) for key in sorted(keys)])

    def walk(self) -> dict[str, Stat]:
        """List all objects below: their keys from here on, and what the bucket says of each."""

        def listed() -> Any:
            return _obstore().list(client(self.bucket), self.key).collect()

        return {
            one["path"].removeprefix(f"{self.key}/"): _stat(one)
            for one in calm(self.bucket, listed)
        }

    def stat(self) -> Stat | None:
        """Ask for the size, tag and age of an object; None: there is none."""
        try:
            return _stat(calm(self.bucket, lambda: _obstore().head(client(self.bucket), self.key)))
        except FileNotFoundError:
            return None

    def read_bytes(self) -> bytes:
        """Read an object.

        Raises:
            FileNotFoundError: there is none.
        """
        return self.read()[0]

    def read(self) -> tuple[bytes, Stat]:
        """Read an object, and what the bucket says of these very bytes.

        Raises:
            FileNotFoundError: there is none.
        """

        def got() -> tuple[bytes, Stat]:
            answer = _obstore().get(client(self.bucket), self.key)
            return bytes(answer.bytes()), _stat(answer.meta)

        return calm(self.bucket, got)

    def write(self, data: bytes) -> str:
        """Put an object, whole or not at all; gives its tag."""
        return str(
            calm(
                self.bucket,
                lambda: _obstore().put(client(self.bucket), self.key, data, chunk_size=PART),
            )["e_tag"]
        )

    def write_if(self, data: bytes, tag: str | None) -> str | None:
        """Put an object on a condition; gives its tag, or None where the condition did not hold.

        Args:
            data: no other writer's: when an answer is lost, it tells whether the bytes are ours.
            tag: of the object that is replaced; None: there is none.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if tag is None else {"e_tag": tag}
        try:
            made = calm(
                self.bucket,
                lambda: _obstore().put(client(self.bucket), self.key, data, mode=mode),
            )
            return str(made["e_tag"])
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            try:  # it may be a second try of a put whose first one was done and not answered
                there, stat = self.read()
            except FileNotFoundError:
                return None
            return stat.tag if there == data else None

    def unlink(self) -> None:
        """Delete an object, if it is there."""
        try:
            calm(self.bucket, lambda: _obstore().delete(client(self.bucket), self.key))
        except FileNotFoundError:
            return


def client(bucket: str, prefix: str = "") -> Any:
    """Give obstore's client for a bucket, as the environment has it now.

    Raises:
        UsageFault: obstore is not installed.
        BucketError: the environment has a setting that means nothing.
    """
    names = sorted(name for name in os.environ if name.startswith("AWS_"))
    return _client(bucket, prefix, tuple((name, os.environ[name]) for name in names))


@lru_cache(maxsize=32)
def _client(bucket: str, prefix: str, environment: tuple[tuple[str, str], ...]) -> Any:
    _obstore()
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    known = dict(environment)
    endpoint = _endpoint(known)
    try:
        return S3Store(
            bucket,
            prefix=prefix or None,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=CONNECT),
                "timeout": timedelta(seconds=ANSWER),
            },
            retry_config={
                # where nothing names credentials, the machine's own are asked for: not for long
                "max_retries": RETRIES if any(known.get(n) for n in CREDENTIALS) else 1,
                "backoff": {
                    "init_backoff": timedelta(seconds=FIRST_PAUSE),
                    "max_backoff": timedelta(seconds=LONGEST_PAUSE),
                },
                "retry_timeout": timedelta(seconds=PATIENCE / 2),
            },
        )
    except (BaseError, ValueError) as error:
        raise BucketError(
            f"bucket {bucket!r} cannot be opened: {reason(error)}",
            hint="the environment has AWS_ENDPOINT_URL, AWS_REGION and the like",
        ) from None


def _endpoint(known: Mapping[str, str]) -> str:
    """Give the address that calls go to, or nothing where it is Amazon's.

    Raises:
        BucketError: it is no address; obstore would panic.
    """
    name = next((name for name in ENDPOINTS if known.get(name)), "")
    address = known.get(name, "")
    if address and not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", address):
        raise BucketError(
            f"{name} is no address of a server, as `http://HOST:PORT` is",
            hint=f"set {name} anew, or unset it to go to Amazon's own",
        )
    return address


def calm(bucket: str, call: Callable[[], T]) -> T:
    """Make a call to a bucket, and make it again while that may help.

    Raises:
        BucketError: the bucket does not answer, or refuses.
    """
    patience = Patience(bucket)
    while True:
        try:
            return call()
        except Exception as error:
            pause = patience.pause(error)
        time.sleep(pause)


class Patience:
    """Tells after each failure of one call how long to wait before the next try, or gives up."""

    def __init__(self, bucket: str) -> None:
        self.bucket, self.tries, self.began = bucket, 0, time.monotonic()

    def pause(self, error: Exception) -> float:
        """Give the seconds to wait.

        Raises:
            BucketError: it is no use.
            Exception: the error itself, where it is an answer: no such object, not now.
        """
        if isinstance(error, Nf2vecError):
            raise error
        from obstore import exceptions as known

        self.tries += 1
        text = str(error)
        if "NoSuchBucket" in text:
            raise BucketError(
                f"bucket {self.bucket!r} is not there",
                hint="is the name right, and AWS_ENDPOINT_URL?",
            ) from None
        if isinstance(error, known.PermissionDeniedError | known.UnauthenticatedError):
            raise _refused(self.bucket, error) from None
        answers = FileNotFoundError, known.AlreadyExistsError, known.PreconditionError
        if isinstance(error, answers) or not isinstance(error, known.BaseError | OSError):
            raise error
        if "169.254." in text or "redential" in text:  # where a machine's own credentials are
            raise _refused(self.bucket, error) from None
        seconds = time.monotonic() - self.began
        hopeless = isinstance(error, known.BaseError) and not isinstance(error, known.GenericError)
        if hopeless or re.search(r"status code: 4(?!08|29)\d\d", text):
            raise _refused(self.bucket, error) from None
        if self.tries >= TRIES or seconds >= PATIENCE:
            raise BucketError(
                f"bucket {self.bucket!r} does not answer, after {self.tries} rounds of tries in "
                f"{seconds:.0f} s: {reason(error)}",
                hint="run the same line again: what was committed is kept",
            ) from None
        longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self.tries)
        return random.uniform(longest / 2, longest)  # nosec B311 - no secret, a pause


def reason(error: Exception) -> str:
    """Say what obstore says, in one line, without anything that is secret."""
    text = str(error).partition("\nDebug source:")[0]
    code = re.search(r"<Code>([^<]*)</Code>(?:<Message>([^<]*)</Message>)?", text)
    line = text.strip().partition("\n")[0].partition("<?xml")[0].strip().rstrip(":")
    if code:
        line = f"{line}: {code[1]}" + (f" ({code[2]})" if code[2] else "")
    line = re.sub(r"//[^/@\s]+@", "//***@", line)
    line = re.sub(r"((?:X-Amz-[A-Za-z]+|Signature|AWSAccessKeyId)=)[^&\s]+", r"\1***", line)
    for name in SECRETS:
        if os.environ.get(name):
            line = line.replace(os.environ[name], "***")
    return line[:400]


def _refused(bucket: str, error: Exception) -> BucketError:
    if "169.254." in str(error) or not any(os.environ.get(name) for name in CREDENTIALS):
        return BucketError(
            f"bucket {bucket!r} needs credentials, and the environment has none",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for "
            "a bucket that is open to all",
        )
    return BucketError(
        f"bucket {bucket!r} refuses: {reason(error)}",
        hint="do AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION belong to it, and may "
        "they do this?",
    )


def _stat(meta: Any) -> Stat:
    return Stat(int(meta["size"]), str(meta["e_tag"]), meta["last_modified"])


def _obstore() -> Any:
    try:
        import obstore
    except ImportError as error:
        raise UsageFault(
            "a store in a bucket needs the extra `s3`, which is not installed",
            hint="`pip install 'nf2vec[s3]'`",
        ) from error
    return obstore
