import numpy as np
import pytest
import torch

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.tasks import fit_object
from nf2vec_cli.tasks.fit_object import Failed, Fitted, Job, fit_jobs
from nf2vec_cli.tasks.optimise import Optimised, network_of

CONFIG = FitConfig(hidden=32, steps=4, points=100, pool=2000)
SIZE = network_of(CONFIG).parameters


def jobs(shapes, *names):
    return [Job(name, shapes / name, "sdf", CONFIG, "init") for name in names]


@pytest.fixture
def init():
    from nf2vec_cli.models.network import siren_init

    return siren_init(network_of(CONFIG), seed=0).numpy()


@pytest.mark.parametrize("graphs", [False, True])
def test_fitted_together_as_on_a_gpu_equals_one_by_one(shapes, init, graphs):
    """The batched path, on the CPU: four objects, of which one fails, in two places."""
    batch = jobs(shapes, "chair/chair.ply", "none.ply", "lamp/lamp.ply", "sofa/sofa.stl")
    together = list(
        fit_object._fit_prepared(
            *(batch, map(fit_object.prepare, batch)),
            init=init,
            device=torch.device("cpu"),
            size=2,
            graphs=graphs,
        )
    )
    alone = list(fit_jobs(batch, init, device=torch.device("cpu"), workers=1, size=64))

    assert (
        [type(o) for o in together]
        == [type(o) for o in alone]
        == [
            Fitted,
            Failed,
            Fitted,
            Fitted,
        ]
    )
    for a, b in zip(together, alone, strict=True):
        if isinstance(a, Fitted) and isinstance(b, Fitted):
            np.testing.assert_allclose(a.theta, b.theta, rtol=1e-4, atol=1e-6)
            assert a.columns["key"] == b.columns["key"]


def test_a_fit_that_diverges_is_a_failure(shapes, init, monkeypatch):
    monkeypatch.setattr(
        fit_object,
        "optimise",
        lambda *_, **__: iter([Optimised(0, torch.full((SIZE,), float("nan")), 4)]),
    )

    (outcome,) = fit_jobs(
        jobs(shapes, "chair/chair.ply"), init, device=torch.device("cpu"), workers=1, size=64
    )

    assert isinstance(outcome, Failed)
    assert "diverged" in outcome.reason


def test_the_key_depends_on_source_settings_and_init(shapes):
    (job,) = jobs(shapes, "chair/chair.ply")
    other = Job(job.id, job.path, "sdf", CONFIG.model_copy(update={"steps": 5}), "init")
    kept = {"bits": 6, "shard_length": 256}
    packed = Job(job.id, job.path, "sdf", CONFIG.model_copy(update=kept), "init")

    assert fit_object.product_key(b"a", job) != fit_object.product_key(b"b", job)
    assert fit_object.product_key(b"a", job) != fit_object.product_key(b"a", other)
    # how a field is kept does not change the field
    assert fit_object.product_key(b"a", job) == fit_object.product_key(b"a", packed)


@pytest.mark.gpu
def test_a_gpu_fits_what_a_cpu_fits(shapes, init):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    batch = jobs(shapes, "chair/chair.ply", "lamp/lamp.ply")
    gpu = list(fit_jobs(batch, init, device=torch.device("cuda"), workers=1, size=64))
    cpu = list(fit_jobs(batch, init, device=torch.device("cpu"), workers=1, size=64))

    for a, b in zip(gpu, cpu, strict=True):
        assert isinstance(a, Fitted)
        assert isinstance(b, Fitted)
        np.testing.assert_allclose(a.theta, b.theta, atol=1e-4)
