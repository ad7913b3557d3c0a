import numpy as np
import pytest
import torch
from ball_views import ball_views

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.models.network import radiance_init
from nf2vec_cli.shapes.views import write_views
from nf2vec_cli.store.schema import CAMERAS, GRID
from nf2vec_cli.tasks import fit_radiance
from nf2vec_cli.tasks.fit_object import Failed, Fitted, Job
from nf2vec_cli.tasks.optimise_rays import Lit, radiance_network

CONFIG = FitConfig(
    hidden=16, layers=2, octaves=4, grid=32, samples=64, steps=10, step_samples=1_000
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Three balls, and a folder of nothing between them."""
    root = tmp_path_factory.mktemp("views")
    for number in range(3):
        write_views(ball_views(seed=number), root / f"{number}")
    names = ("0", "none", "1", "2")
    return [Job(name, root / name, "nerf", CONFIG, "init", study=name == "1") for name in names]


@pytest.fixture(scope="module")
def init():
    return radiance_init(radiance_network(CONFIG), seed=0).numpy()


def test_fitted_together_as_on_a_gpu_equals_one_by_one(jobs, init):
    prepared = [fit_radiance.prepare_views(job) for job in jobs]
    together = list(fit_radiance._fit_prepared(jobs, prepared, init=init, device=CPU))
    alone = list(fit_radiance.fit_radiance(jobs, init, device=CPU, workers=1, size=64))

    kinds = [Fitted, Failed, Fitted, Fitted]
    assert [type(o) for o in together] == [type(o) for o in alone] == kinds
    for a, b in zip(together, alone, strict=True):
        if isinstance(a, Fitted) and isinstance(b, Fitted):
            np.testing.assert_allclose(a.theta, b.theta, rtol=1e-3, atol=1e-4)
            assert a.columns["key"] == b.columns["key"]
            assert abs(a.columns["psnr"] - b.columns["psnr"]) < 0.1
            assert set(a.beside) == {GRID, CAMERAS}


def test_codecs_are_compared_by_the_colours_they_give(jobs, init):
    outcome = fit_radiance.fit_views(jobs[2], init)

    assert isinstance(outcome, Fitted)
    assert outcome.study is not None
    exact, five = outcome.study["exact"], outcome.study["compact 5 bit"]
    assert five[0] < exact[0] / 3
    assert exact[1] == pytest.approx(outcome.columns["error"], rel=0.05)


def test_a_fit_that_diverges_is_a_failure(jobs, init, monkeypatch):
    lost = Lit(0, torch.full((len(init),), float("nan")), torch.ones(32, 32, 32) > 0, 1, 1)
    monkeypatch.setattr(fit_radiance, "optimise_rays", lambda *_, **__: iter([lost]))

    outcome = fit_radiance.fit_views(jobs[0], init)

    assert isinstance(outcome, Failed)
    assert "diverged" in outcome.reason
