import numpy as np
import pytest
import torch
from near_init import make_store

from nf2vec_cli.config import Preset
from nf2vec_cli.config.generate import GenerateConfig, generate_defaults
from nf2vec_cli.progress import Silent
from nf2vec_cli.store.products import CHECKPOINTS, ENCODERS, Embeddings, keys, save_state
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks import heads
from nf2vec_cli.tasks.generator import energy_distance, generator_key, trained_generator

NONE = np.empty(0, np.int64)


@pytest.fixture
def kept(tmp_path):
    """Embeddings of 20 objects: two numbers on a circle, and two that follow from them."""
    store = open_store(make_store(tmp_path / "ds.zarr"), mode="a")
    save_state(store, ENCODERS, "one", {"a": np.zeros(1)})
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 20)
    two = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    kept = Embeddings.open_or_make(store, "one", 4)
    kept.write(store.rows(), np.concatenate([two, 3 * two + 5], axis=1).astype(np.float32))
    return kept


def train(kept, config, *, rows=slice(0, 14), val=slice(14, 17), force=False):
    every = kept.store.rows()
    return trained_generator(
        kept,
        "shape",
        (every[rows], every[val]),
        config,
        directions=0,
        device=torch.device("cpu"),
        force=force,
        progress=Silent(),
    )


def drawn(made, count=200):
    return made.model.sample(count, generator=torch.Generator().manual_seed(0))


SMALL = {"width": 16, "steps": 60, "validate_every": 20, "checkpoint_every": 25}


@pytest.mark.parametrize("model", ["flow", "gan"])
def test_a_run_that_was_killed_goes_on_to_the_same_numbers(kept, monkeypatch, model):
    config = GenerateConfig(model=model, **SMALL)
    whole = drawn(train(kept, config))

    class Killed(Exception):
        pass

    save = heads.save_checkpoint

    def save_and_die(*args, **facts):
        save(*args, **facts)
        if facts["step"] == 50:
            raise Killed

    monkeypatch.setattr(heads, "save_checkpoint", save_and_die)
    with pytest.raises(Killed):
        train(kept, config, force=True)
    assert len(keys(kept.store, CHECKPOINTS)) == 1
    kept.store.group["heads/generate"].store  # noqa: B018
    del kept.store.group[
        f"heads/generate/{generator_key(kept, 'shape', kept.store.rows()[:14], config)}"
    ]
    monkeypatch.setattr(heads, "save_checkpoint", save)

    torch.testing.assert_close(drawn(train(kept, config)), whole, rtol=0, atol=0)
    assert keys(kept.store, CHECKPOINTS) == []


def test_a_flow_learns_how_numbers_hang_together(kept):
    z = drawn(train(kept, GenerateConfig(**SMALL)))

    assert (z[:, 2:] - 3 * z[:, :2] - 5).abs().mean() < 0.6
    assert np.corrcoef(z[:, 0], z[:, 2])[0, 1] > 0.95


@pytest.mark.slow
def test_a_gan_comes_nearer_to_the_embeddings(kept):
    real = torch.from_numpy(kept.read(kept.store.rows()))
    settings = GenerateConfig.model_validate(generate_defaults(Preset.small, "gan"))
    config = settings.model_copy(update={"steps": 1_200, "learning_rate": 1e-3, "noise": 8})
    start = config.model_copy(update={"steps": 6, "validate_every": 6})

    before, after = (energy_distance(drawn(train(kept, c)), real) for c in (start, config))

    assert after < before / 3


def test_the_key_names_all_that_a_generator_depends_on(kept):
    rows, config = kept.store.rows(), GenerateConfig()
    known = {
        generator_key(kept, "shape", rows[:14], config),
        generator_key(kept, "chair", rows[:14], config),
        generator_key(kept, "shape", rows[:13], config),
        generator_key(kept, "shape", rows[:14], config.model_copy(update={"seed": 1})),
    }

    assert len(known) == 4
    assert generator_key(kept, "shape", rows[:14], config) in known


def test_epochs_count_the_critics_passes(kept):
    config = GenerateConfig(model="gan", epochs=10, batch=4, critic_steps=5, noise=4)

    # 3 batches of 4 in 14 objects: 30 critic's steps in 10 passes, 6 of the generator
    assert train(kept, config).steps == 36


def test_without_val_the_training_objects_are_looked_at(kept):
    assert train(kept, GenerateConfig(**SMALL), val=slice(0, 0)).best_step > 0


def test_energy_distance_is_that_of_its_definition():
    a, b = torch.randn(300, 3), torch.randn(200, 3)

    assert abs(energy_distance(a, b)) < 0.1
    assert energy_distance(a, b + 5) == pytest.approx(
        2 * float(torch.cdist(a, b + 5).mean())
        - float(torch.pdist(a).mean())
        - float(torch.pdist(b).mean()),
        rel=1e-3,
    )
