"""Neural fields in a Zarr store: fit them to shapes, keep them small, read them back."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# names for use from Python; each is imported when it is asked for, since torch takes seconds
PUBLIC = {
    "open_store": "nf2vec_cli.store.store",
    "discover": "nf2vec_cli.shapes.discover",
    "FitConfig": "nf2vec_cli.config.fit",
    "fit_shapes": "nf2vec_cli.tasks.fit",
    "reconstruct": "nf2vec_cli.tasks.reconstruct",
    "check_store": "nf2vec_cli.store.check",
}


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
