"""Networks of ReLU units that PyTorch fits to real shapes, for tests of fields from elsewhere."""

from itertools import pairwise

import numpy as np
import torch
from torch import nn

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.mlp import frequencies
from nf2vec_cli.fields.field import field_of
from nf2vec_cli.shapes.load import load_shape
from nf2vec_cli.shapes.unit import into_unit

SHAPES = {"sofa": "sofa/sofa.stl", "cup": "tableware/plastic_cup.off"}
CLIP = 0.1


def mlp(octaves=0, *, hidden=32, biases=True):
    """Make a network as PyTorch starts it, always the same."""
    torch.manual_seed(0)
    sizes = [6 * octaves or 3, hidden, hidden, hidden, 1]
    linear = [nn.Linear(into, out, bias=biases) for into, out in pairwise(sizes)]
    return nn.Sequential(*(part for one in linear for part in (one, nn.ReLU())))[:-1]


def asked(net, points, octaves=0):
    """Give a network's distances at points [M, 3]: [M]."""
    with torch.no_grad():
        return net(frequencies(points, octaves) if octaves else points)[:, 0]


def pool_of(shape, size=20_000):
    """Measure clipped distances of a file's shape: points [M, 3] and values [M]."""
    unit, _, _ = into_unit(load_shape(shape, "sdf"), how="box")
    pool = field_of("sdf").prepare(unit, FitConfig(pool=size), rng=np.random.default_rng(0))
    return torch.from_numpy(pool.coords), torch.from_numpy(pool.values)


def fitted(shape, octaves=0, *, steps=150, **sizes):
    """Fit a network to the distances of a file's shape, negative inside, for a second or so."""
    net = mlp(octaves, **sizes)
    coords, values = pool_of(shape)
    read = frequencies(coords, octaves) if octaves else coords
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        some = torch.randint(len(coords), (2_000,), generator=draw)
        error = net(read[some])[:, 0].clamp(-CLIP, CLIP) - values[some]
        optimiser.zero_grad()
        error.abs().mean().backward()
        optimiser.step()
    return net
