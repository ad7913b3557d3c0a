"""Graphs of ONNX say what the modules say, by onnxruntime."""

import json

import numpy as np
import pytest
import torch
from strangers import SPEC, near, start

from nf2vec_cli.foreign.onnx_encoder import classifier_graph, encoder_graph
from nf2vec_cli.foreign.onnx_field import field_graph
from nf2vec_cli.models.classifier import Classifier
from nf2vec_cli.models.encoder import AlignedEncoder, RowsEncoder
from nf2vec_cli.models.network import radiance_init, radiance_spec, relu_spec
from nf2vec_cli.tasks.field_function import FieldFunction
from nf2vec_cli.tasks.radiance_field import RadianceField

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

RELU = relu_spec(hidden=32, layers=2)
CODED = relu_spec(hidden=32, layers=2, octaves=4)
LIT = radiance_spec(hidden=32, layers=2, octaves=6, biases=True, density=0.7)
POINTS = np.random.default_rng(0).uniform(-1, 1, (500, 3)).astype(np.float32)
of_each = pytest.mark.parametrize(
    "spec", [SPEC, RELU, CODED, LIT], ids=["siren", "relu", "relu, coded", "radiance"]
)


def asked(graph, **feed):
    return runtime.InferenceSession(graph).run(None, feed)


def many(spec, count=24):
    sine = spec.activation == "sine"
    init = start(spec=spec) if sine else radiance_init(spec, seed=0).numpy()
    by = 0.01 if sine else 0.1
    return init, torch.from_numpy(np.stack([near(init, seed, by) for seed in range(count)]))


@pytest.mark.parametrize("kind", ["sdf", "udf", "occ"])
@pytest.mark.parametrize("spec", [SPEC, RELU, CODED], ids=["siren", "relu", "relu, coded"])
def test_a_field_of_shapes(kind, spec):
    theta = near(start(), 1, by=0.02) if spec is SPEC else many(spec)[1][0].numpy()

    (found,) = asked(field_graph(theta, spec, kind, {}), points=POINTS)

    wanted = FieldFunction(theta, spec, kind).values(POINTS)
    assert np.ptp(wanted) > 1e-3
    assert np.abs(found - wanted).max() < 1e-5


def test_a_field_of_radiance_and_its_facts():
    _, theta = many(LIT)
    graph = field_graph(theta[0].numpy(), LIT, "nerf", {"id": "a"})

    colour, density = asked(graph, points=POINTS)

    field = RadianceField(theta[0], LIT, np.ones((16,) * 3, bool), 64)
    for got, wanted in zip((colour, density), field.at(torch.from_numpy(POINTS)), strict=True):
        assert np.abs(got - wanted.numpy()).max() < 1e-5
    told = runtime.InferenceSession(graph).get_modelmeta().custom_metadata_map
    assert json.loads(told["nf2vec"]) == {"id": "a"}


@pytest.mark.parametrize(
    "spec", [SPEC, RELU, CODED, LIT], ids=["siren", "relu", "relu, coded", "radiance"]
)
def test_the_paper_s_encoder_for_any_number_of_fields(spec):
    torch.manual_seed(0)
    _, theta = many(spec)
    encoder = RowsEncoder(spec, widths=[32, 48], embedding=24)
    with torch.no_grad():
        encoder.rows[0].weight.mul_(20)  # rows are small: let them count beside biases
        encoder(theta)  # statistics of the training rows
        encoder.eval()
        graph = encoder_graph(encoder, {})
        for some in (theta[:1], theta[:5]):
            wanted = encoder(some).numpy()
            (found,) = asked(graph, theta=some.numpy())
            assert np.abs(found - wanted).max() < 1e-5
    assert np.ptp(wanted, axis=0).max() > 1e-2


@pytest.mark.parametrize("probes", [0, 7, 15])
@pytest.mark.parametrize(
    "spec", [SPEC, RELU, CODED, LIT], ids=["siren", "relu", "relu, coded", "radiance"]
)
def test_the_aligned_encoder_reads_fields_in_the_graph(spec, probes):
    torch.manual_seed(0)
    init, theta = many(spec)
    encoder = AlignedEncoder(spec, components=8, width=16, embedding=40, probes=probes).eval()
    with torch.no_grad():
        encoder.fit_projection(theta, torch.from_numpy(init))
        graph = encoder_graph(encoder, {})
        for some in (theta[:1], theta[3:9]):
            wanted = encoder(some).numpy()
            (found,) = asked(graph, theta=some.numpy())
            # whitened components are of length 1: 1e-5 of an embedding's own length
            assert np.abs(found - wanted).max() < 1e-5 * np.linalg.norm(wanted, axis=1).max()


def test_a_classifier():
    torch.manual_seed(0)
    head = Classifier(16, 5, widths=[12, 8], dropout=0.5)
    z = torch.randn(40, 16)
    head.standardise(z * 3 + 1)
    head(z)
    head.eval()

    logits, share = asked(classifier_graph(head, {}), embedding=z.numpy())

    wanted = head(z).detach()
    assert np.abs(logits - wanted.numpy()).max() < 1e-5
    assert np.abs(share - wanted.softmax(1).numpy()).max() < 1e-5
