"""Turn whatever a parser does with a corrupt file into a reason that a person understands."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from nf2vec_cli.errors import InputError


@contextmanager
def reasons(suffix: str) -> Iterator[None]:
    """Let nothing but InputError and MemoryError out of the block, and no warning."""
    logger = logging.getLogger("trimesh")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        what = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        if isinstance(error, IndexError | KeyError):
            what = "it points to something that is not there, such as a face to a vertex"
        kind = suffix[1:].upper()
        raise InputError(f"the file is corrupt, cut short or no {kind}: {what}") from error
    finally:
        logger.setLevel(before)
