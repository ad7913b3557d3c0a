import copy

import classify_times
import numpy as np
import point_networks
import pytest
import torch
from point_networks import (
    DgcnnClassifier,
    DgcnnSegmenter,
    EdgeConv,
    PointNetClassifier,
    PointNetSegmenter,
    Turn,
    neighbours,
)
from point_training import LOOKS, WARM, step_size, train
from torch import nn
from torch.nn.functional import cross_entropy

from nf2vec_cli.tasks.spread import one_thread

CLASSIFIERS = [PointNetClassifier, DgcnnClassifier]
SEGMENTERS = [PointNetSegmenter, DgcnnSegmenter]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    with one_thread():  # budgets are CPU time of all threads
        yield


def settled(net, *inputs):
    """Give a network statistics and turns other than those it starts with, in eval mode."""
    for module in net.modules():
        if isinstance(module, Turn):
            nn.init.normal_(module.last.weight, std=0.02)
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 1
    net.train()(*inputs)
    return net.eval()


def published(conv, norm, x, k):
    """An EdgeConv of one layer, edge by edge."""
    distances = torch.cdist(x, x)
    near = distances.topk(k, largest=False).indices
    there = torch.stack([cloud[places] for cloud, places in zip(x, near, strict=True)])
    here = x[:, :, None].expand_as(there)
    edges = torch.cat([there - here, here], 3).permute(0, 3, 1, 2)
    return nn.functional.leaky_relu(norm(conv(edges)), 0.2).amax(3).mT


def test_neighbours_of_points_on_a_line_are_those_beside_them():
    x = torch.tensor([0.0, 1.0, 3.0, 7.0, 7.5])[None, :, None].expand(1, 5, 3)

    found = neighbours(x, 3)[0].sort(1).values

    assert found.tolist() == [[0, 1, 2], [0, 1, 2], [0, 1, 2], [2, 3, 4], [2, 3, 4]]
    assert neighbours(x, 20).shape == (1, 5, 5)


def test_neighbours_are_the_nearest_of_their_own_cloud():
    x = 100 + torch.randn(3, 50, 6)

    found = neighbours(x, 7).sort(2).values

    assert torch.equal(found, torch.cdist(x, x).topk(7, largest=False).indices.sort(2).values)


@pytest.mark.parametrize("training", [True, False])
def test_an_edge_convolution_is_the_published_one(training):
    ours = EdgeConv(3, 8, k=5).train(training)
    conv, norm = nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8).train(training)
    # factors of both signs: where one is negative the least edge wins
    nn.init.normal_(ours.norm.weight)
    nn.init.normal_(ours.norm.bias)
    ours.norm.running_mean.normal_()
    norm.load_state_dict(ours.norm.state_dict())
    conv.weight.data = ours.first.weight.data[:, :, None, None].clone()
    ours_x = (5 + torch.randn(2, 40, 3)).requires_grad_()
    their_x = ours_x.detach().clone().requires_grad_()
    slope = torch.randn(2, 40, 8)

    found, wanted = ours(ours_x), published(conv, norm, their_x, 5)
    (found * slope).sum().backward()
    (wanted * slope).sum().backward()

    close = {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(found, wanted, **close)
    torch.testing.assert_close(ours_x.grad, their_x.grad, **close)
    torch.testing.assert_close(ours.first.weight.grad, conv.weight.grad[..., 0, 0], **close)
    torch.testing.assert_close(ours.norm.weight.grad, norm.weight.grad, **close)
    torch.testing.assert_close(ours.norm.running_mean, norm.running_mean, **close)
    torch.testing.assert_close(ours.norm.running_var, norm.running_var, **close)


def test_edges_of_several_layers_are_the_same_as_those_of_one():
    """A second layer that changes nothing leaves the first one's result."""
    one = EdgeConv(3, 8, k=5).eval()
    two = EdgeConv(3, 8, 8, k=5).eval()
    two.load_state_dict(one.state_dict(), strict=False)
    nn.init.eye_(two.rest[0].weight)
    two.rest[2] = nn.Identity()
    x = torch.randn(2, 30, 3)

    torch.testing.assert_close(two(x), one(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("model", "millions"), [(PointNetClassifier, 3.5), (DgcnnClassifier, 1.8)])
def test_at_width_1_the_networks_are_as_large_as_published(model, millions):
    parameters = sum(p.numel() for p in model(40, 1.0).parameters())

    assert parameters / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("model", CLASSIFIERS)
@torch.no_grad()
def test_the_order_of_points_does_not_matter(model):
    points = torch.randn(4, 64, 3)
    net = settled(model(5, 0.25), points)

    found, again = net(points)[0], net(points[:, torch.randperm(64)])[0]

    torch.testing.assert_close(found, again, rtol=1e-3, atol=1e-4)
    assert found.std(0).min() > 1e-2  # but which points they are does


@pytest.mark.parametrize("model", SEGMENTERS)
@torch.no_grad()
def test_parts_go_with_the_points(model):
    points, labels, order = torch.randn(4, 64, 3), torch.tensor([0, 1, 2, 1]), torch.randperm(64)
    net = settled(model(3, 6, 0.25), points, labels)

    found, again = net(points, labels)[0], net(points[:, order], labels)[0]

    assert found.shape == (4, 64, 6)
    torch.testing.assert_close(found[:, order], again, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found, net(points, labels.roll(1))[0], atol=1e-3)


@torch.no_grad()
def test_blocks_of_points_and_folded_layers_give_the_same_classes(monkeypatch):
    points = torch.randn(4, 64, 3)
    net = settled(PointNetClassifier(5, 0.25), points)
    found = net(points)[0]
    folded = classify_times.folded(copy.deepcopy(net))
    monkeypatch.setattr(point_networks, "BLOCK", 24)

    torch.testing.assert_close(net(points)[0], found, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(folded(points)[0], found, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in folded.modules())


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_shapes_that_differ_are_told_apart(model):
    """Sticks, plates and balls, turned and shifted; other ones than those learned from."""
    sizes = torch.tensor([[1, 0.1, 0.1], [1, 1, 0.1], [1, 1, 1]])
    labels = torch.arange(24) % 3

    def clouds():
        points = nn.functional.normalize(torch.randn(24, 64, 3), dim=2) * sizes[labels][:, None]
        return points + 0.1 * torch.randn(24, 1, 3)

    net, held = model(3, 0.125), clouds()

    def loss(_):
        scores, penalty = net(clouds())
        return cross_entropy(scores, labels) + penalty

    @torch.no_grad()
    def look():
        return float((net(held)[0].argmax(1) == labels).float().mean())

    done = train(net, loss, look, seconds=3, rate=5e-3)

    assert done.score == 1
    assert look() == 1
    assert 3 <= done.seconds < 5


def test_the_step_size_is_spread_over_the_budget():
    shares = [step_size(share) for share in np.linspace(0, 1, 201)]

    assert max(shares) == pytest.approx(1)
    assert shares[0] == pytest.approx(0.1)
    assert shares[-1] == pytest.approx(0.01)
    assert int(np.argmax(shares)) == round(200 * WARM)


def test_the_weights_of_the_best_look_are_kept():
    net, seen = nn.Linear(1, 1), []

    def look():
        seen.append(net.weight.item())
        return -abs(len(seen) - 3)

    done = train(net, lambda _: net(torch.ones(1)).sum(), look, seconds=0.2, rate=0.1)

    assert len(seen) <= LOOKS
    assert done.score == 0
    assert net.weight.item() == seen[2]
    assert not net.training
