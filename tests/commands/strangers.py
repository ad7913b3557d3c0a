"""Files of fields as others write them, for tests."""

import json
from itertools import pairwise

import numpy as np
import torch

from nf2vec_cli.models.network import NetworkSpec, siren_init, split_theta, tcnn_init

SPEC = NetworkSpec(hidden=32, layers=4)
NERF = NetworkSpec(144, 64, 3, 4, 0.0, "relu", 24, False, 0.7)
BALL = 0.5  # radius of the shapes that come with fields


def near(init, seed, by=1e-3):
    """Weights near an init."""
    noise = np.random.default_rng(seed).normal(0, by, len(init))
    return (init + noise).astype(np.float32)


def start(seed=7, spec=SPEC):
    return siren_init(spec, seed=seed).numpy()


def layers_of(theta, spec=SPEC):
    weights, biases = split_theta(torch.from_numpy(theta)[None], spec)
    return [(w[0].clone(), b[0].clone()) for w, b in zip(weights, biases, strict=True)]


def state_dict(layers, keys="layers.{layer}.{part}"):
    found = {}
    for layer, (weight, bias) in enumerate(layers):
        found[keys.format(layer=layer, part="weight")] = weight
        found[keys.format(layer=layer, part="bias")] = bias
    return found


def torch_init(path, theta, spec=SPEC):
    """The authors' init file: layers.0.0.weight, ..., layers.4.weight."""
    layers = layers_of(theta, spec)
    named = state_dict(layers[:-1], "layers.{layer}.0.{part}")
    named |= {f"layers.{spec.layers}.weight": layers[-1][0]}
    named |= {f"layers.{spec.layers}.bias": layers[-1][1]}
    torch.save(named, path)
    return path


def ball_cloud(count=2048, radius=BALL):
    points = np.random.default_rng(3).normal(size=(count, 3))
    return (radius * points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def authors_h5(path, theta, number=0, *, params="params", **arrays):
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as opened:
        opened[params] = theta
        opened["class_id"] = number
        for name, array in arrays.items():
            opened[name] = array
    return path


def authors_mesh():
    """A closed mesh as they store it: filled up with zeros, triangles as floats."""
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=3, radius=BALL)
    vertices, faces = np.zeros((1000, 3), np.float32), np.zeros((2000, 3), np.float32)
    vertices[: len(ball.vertices)], faces[: len(ball.faces)] = ball.vertices, ball.faces
    return {
        "vertices": vertices,
        "num_vertices": len(ball.vertices),
        "triangles": faces,
        "num_triangles": len(ball.faces),
    }


def nerf_folder(folder, theta, *, cells=32, unused=None):
    """A folder of radiance; unused: the rows that nothing reads, None for the official init's."""
    folder.mkdir(parents=True)
    rest = tcnn_init(NERF, seed=0)[NERF.parameters :] if unused is None else unused
    flat = torch.from_numpy(np.concatenate([theta, rest]).astype(np.float32))
    torch.save({"mlp_base.params": flat}, folder / "nerf_weights.pth")
    grid = torch.zeros((cells,) * 3, dtype=torch.bool)
    grid[cells // 4 : -cells // 4, cells // 4 : -cells // 4, cells // 4 : -cells // 4] = True
    facts = {"_roi_aabb": torch.tensor([-0.7] * 3 + [0.7] * 3).half(), "_binary": grid.to_sparse()}
    torch.save(facts | {"resolution": torch.tensor([cells] * 3).half()}, folder / "grid.pth")
    pose = np.eye(4)
    pose[2, 3] = 1.4  # looks at the origin along -z
    frames = [{"file_path": "train/r_0", "transform_matrix": pose.tolist()}]
    text = json.dumps({"camera_angle_x": 0.8575560548920328, "frames": frames})
    (folder / "transforms_train_compressed.json").write_text(text)
    return grid.numpy()


def fit_a_nef(path, fields, labels, *, omega=8.0, config=True):
    """A file of fit-a-nef: layers of each object, (kernel [in, out], bias [out])."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    last = len(fields[0]) - 1
    names = [f"kernel_net_{n}.linear" if n < last else "output_linear" for n in range(last + 1)]
    parts, rows = [], []
    for name, (kernel, bias) in zip(names, fields[0], strict=True):
        parts += [(f"{name}.bias", bias.shape), (f"{name}.kernel", kernel.shape)]
    for layers in fields:
        rows.append(np.concatenate([a.reshape(-1) for kernel, b in layers for a in (b, kernel)]))
    with h5py.File(path, "w") as opened:
        opened["params"] = np.stack(rows).astype(np.float32)
        opened["param_config"] = [json.dumps(parts)]
        opened["labels"] = labels
    if config:
        told = {"name": "SIREN", "params": {"hidden_dim": 16, "omega_0": omega}}
        (path.parent / "nef.json").write_text(json.dumps(told))


def kernels(widths, seed):
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(0, 0.3, (into, out)).astype(np.float32), rng.normal(0, 0.1, out).astype("f4"))
        for into, out in pairwise(widths)
    ]
