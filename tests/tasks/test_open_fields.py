import numpy as np
import torch
from near_init import SPEC, make_store, options

from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.decoded_field import DecodedField
from nf2vec_cli.tasks.embedded import open_embeddings
from nf2vec_cli.tasks.encoders import open_encoder
from nf2vec_cli.tasks.field_function import FieldFunction
from nf2vec_cli.tasks.open_fields import open_each


def test_each_field_is_of_its_weights_or_decoded_where_it_has_none(run, tmp_path):
    path = make_store(tmp_path / "ds.zarr", kind="occ")
    for line in (("train", path, *options()), ("encode", path)):
        assert run(*line).exit_code == 0
    store = open_store(path, mode="a")
    kept = open_embeddings(store)
    kept.write_alone([3], kept.read([3]))
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)
    decoder = open_encoder(store).module.decoder

    field_at = open_each(store, kept.key)

    whole = FieldFunction(store.weights([2])[0], SPEC, "occ")
    alone = DecodedField(decoder, torch.from_numpy(kept.read([3])[0]), "occ")
    np.testing.assert_array_equal(field_at(2).values(points), whole.values(points))
    np.testing.assert_array_equal(field_at(3).values(points), alone.values(points))
