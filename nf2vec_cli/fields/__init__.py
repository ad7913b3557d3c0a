"""The kinds of neural field. Importing this module loads no torch."""

from enum import StrEnum


class FieldName(StrEnum):
    """A kind of field that can be fitted to a shape, or (nerf) to pictures of one."""

    sdf = "sdf"
    udf = "udf"
    occ = "occ"
    nerf = "nerf"
