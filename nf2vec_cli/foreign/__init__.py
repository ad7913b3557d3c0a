"""Fields that were fitted elsewhere, one file a layout. Importing this module loads no torch."""

from enum import StrEnum


class LayoutName(StrEnum):
    """How a folder of fields is laid out."""

    auto = "auto"
    nf2vec_h5 = "nf2vec-h5"
    nerf_folder = "nerf-folder"
    safetensors = "safetensors"
    state_dict = "state-dict"
    dwsnets = "dwsnets"
    fit_a_nef = "fit-a-nef"
