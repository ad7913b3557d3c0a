"""Neural fields in a Zarr store: fit them to shapes, keep them small, read them back."""

__version__ = "0.1.0"
