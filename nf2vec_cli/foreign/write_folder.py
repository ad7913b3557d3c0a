"""One field of radiance as the authors keep it: a folder of weights, grid and cameras."""

from __future__ import annotations

import io
import json
from math import atan
from typing import Any

import numpy as np
import torch

from nf2vec_cli.errors import InputError
from nf2vec_cli.foreign.found import Floats
from nf2vec_cli.foreign.nerf_folder import CAMERAS, GRID, PARAMS, WEIGHTS
from nf2vec_cli.foreign.write_field import Outgoing
from nf2vec_cli.models.network import TCNN_OUTPUTS, tcnn_init


def folder_files(field: Outgoing) -> dict[str, bytes]:
    """Give the files of a folder by name.

    The rows of the last matrix that nothing reads are those of the authors' init. Cameras are in
    the cube that densities are per (theirs: +-0.7), all of one angle, as the format has it.

    Raises:
        InputError: its network has biases, or its coding is none that tiny-cuda-nn leaves as it is.
    """
    spec = field.spec
    if spec.biases or spec.octaves % 8:
        raise InputError("its network has biases, or octaves that are no multiple of 8")
    unused = spec.hidden * (TCNN_OUTPUTS - spec.outputs)
    flat = np.concatenate([field.theta, tcnn_init(spec, seed=0)[-unused:]])
    files = {WEIGHTS: _saved({PARAMS: torch.from_numpy(flat)})}
    if field.grid is not None:
        box = torch.tensor([-spec.density] * 3 + [spec.density] * 3)
        cells = torch.tensor(field.grid.shape)
        binary = torch.from_numpy(field.grid).to_sparse()
        facts = {"_roi_aabb": box.half(), "_binary": binary, "resolution": cells.half()}
        files[GRID] = _saved(facts)
    if field.cameras is not None:
        trained = field.cameras[field.cameras[:, 15] == 1]  # others are held out
        if len(trained):
            files[CAMERAS] = json.dumps(_cameras(trained, spec.density)).encode()
    return files


def _cameras(cameras: Floats, density: float) -> dict[str, Any]:
    rows = cameras.astype(np.float64)
    frames = []
    for number, row in enumerate(rows):
        pose = np.vstack([row[:12].reshape(3, 4), [0, 0, 0, 1]])
        pose[:3, 3] *= density
        name = f"train/r_{number}"
        frames.append({"file_path": name, "transform_matrix": pose.tolist()})
    focal, width, height = rows[0, 12:15].tolist()
    return {
        "camera_angle_x": 2 * atan(0.5 * width / focal),
        "w": int(width),
        "h": int(height),
        "frames": frames,
    }


def _saved(facts: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(facts, buffer)
    return buffer.getvalue()
