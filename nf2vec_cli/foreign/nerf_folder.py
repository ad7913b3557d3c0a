"""The authors' folders of radiance: weights of tiny-cuda-nn, an occupancy grid, and cameras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nf2vec_cli.config.import_ import ImportConfig
from nf2vec_cli.errors import InputError
from nf2vec_cli.foreign.found import Floats, Found, Views, check_cells
from nf2vec_cli.foreign.tensors import as_floats, load_checkpoint
from nf2vec_cli.models.network import TCNN_OUTPUTS, NetworkSpec, radiance_spec, tcnn_init
from nf2vec_cli.shapes.camera_file import read_cameras
from nf2vec_cli.shapes.discover import ShapeRef

WEIGHTS, GRID, CAMERAS = "nerf_weights.pth", "grid.pth", "transforms_train_compressed.json"
PARAMS = "mlp_base.params"
BOX = 0.7  # half the side of their cube
HIDDEN, LAYERS, OCTAVES = 64, 3, 24
PIXELS = 224  # width of their pictures, which the JSON does not say


def read(ref: ShapeRef, net: ImportConfig) -> Found:
    """Read one object.

    Raises:
        InputError: a file is damaged, unsafe, or of another network.
        OSError: it cannot be opened.
    """
    spec = spec_of(net)
    flat = _flat(ref.path)
    padded = flat_size(spec)
    if len(flat) != padded:
        raise InputError(
            f"{PARAMS!r} has {len(flat):,} numbers, and a network of {spec.layers} x {spec.hidden} "
            f"units on {spec.octaves} octaves has {padded:,}"
        )
    unused = spec.hidden * (TCNN_OUTPUTS - spec.outputs)
    start = tcnn_init(spec, seed=0)
    folder, box = ref.path.parent, spec.density
    return Found(
        flat[:-unused],
        spec,
        grid=_grid(folder / GRID) if (folder / GRID).is_file() else None,
        views=_views(folder / CAMERAS, box) if (folder / CAMERAS).is_file() else None,
        transform=(0.0, 0.0, 0.0, box),
        official=bool((flat[-unused:] == start[-unused:]).all()),
        kind="nerf",
    )


def spec_of(net: ImportConfig) -> NetworkSpec:
    """Name the network: the authors', where nothing else is told."""
    octaves = net.octaves or OCTAVES
    if octaves % 8:
        raise InputError(f"octaves {octaves}: tiny-cuda-nn fills other than multiples of 8 up")
    return radiance_spec(
        hidden=net.hidden or HIDDEN,
        layers=net.layers or LAYERS,
        octaves=octaves,
        biases=False,
        density=net.box if "box" in net.model_fields_set else BOX,
    )


def flat_size(spec: NetworkSpec) -> int:
    """Count the numbers of a file: the last matrix has rows that nothing reads."""
    return spec.parameters + spec.hidden * (TCNN_OUTPUTS - spec.outputs)


def _flat(path: Path) -> Floats:
    loaded = load_checkpoint(path)
    if not isinstance(loaded, dict) or set(loaded) != {PARAMS}:
        names = sorted(map(str, loaded)) if isinstance(loaded, dict) else [type(loaded).__name__]
        raise InputError(f"it holds {', '.join(names[:4])}: {PARAMS!r} alone is expected")
    flat: Floats = as_floats(PARAMS, loaded[PARAMS]).reshape(-1)
    return flat


def _grid(path: Path) -> NDArray[np.bool_]:  # -> [G, G, G]
    loaded = load_checkpoint(path)
    binary = loaded.get("_binary") if isinstance(loaded, dict) else None
    if not isinstance(binary, Tensor):
        raise InputError(f"{path.name} has no tensor '_binary'")
    check_cells(tuple(binary.shape))  # before a sparse one grows
    return (binary.to_dense() if binary.layout != torch.strided else binary).bool().numpy()


def _views(path: Path, box: float) -> Views:
    shots = read_cameras(path, usual=PIXELS)
    poses = shots.poses.copy()
    poses[:, :, 3] /= box
    return Views(
        poses.astype(np.float32),
        shots.focal.astype(np.float32),
        shots.size,
        np.zeros(len(poses), bool),
    )
