"""The errors a user can meet, one level deep: each has an exit code and, if possible, a hint."""


class Nf2vecError(Exception):
    """An error that is shown as text, never as a traceback.

    Args:
        message: subject first, the offending value quoted.
        hint: the next command to type, or None.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way back from a worker process with the hint in place."""
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(kind: type[Nf2vecError], message: str, hint: str | None) -> Nf2vecError:
    return kind(message, hint=hint)


class UsageFault(Nf2vecError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class ConfigError(Nf2vecError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = 3


class StoreError(Nf2vecError):
    """The store is missing, damaged, of a newer format, or lacks the column asked for."""

    exit_code = 4


class BucketError(Nf2vecError):
    """A bucket does not answer, or refuses: nothing is said of the store that is in it."""

    exit_code = 4


class InputError(Nf2vecError):
    """No input, or one that cannot be read as a shape."""

    exit_code = 5


class DeviceError(Nf2vecError):
    """The device or the kernel asked for is not available."""

    exit_code = 6


class PartialFailure(Nf2vecError):
    """The run finished, and some objects failed."""

    exit_code = 7


class LockedError(Nf2vecError):
    """Another run is writing to the store."""

    exit_code = 8
