import numpy as np
import pytest
from near_init import make_store

from nf2vec_cli.errors import StoreError
from nf2vec_cli.store import products
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.schema import Entry
from nf2vec_cli.store.store import open_store


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Embeddings of 200 objects, in chunks of 64."""
    monkeypatch.setattr(products, "EMBEDDED", 64)
    store = open_store(make_store(tmp_path / "ds.zarr", count=0), mode="a")
    store.register([Entry(f"shape/{n}", f"{n}.ply") for n in range(200)])
    made = Embeddings.open_or_make(store, "one", 4)
    made.write(range(200), np.arange(800, dtype=np.float32).reshape(200, 4))
    return made


def chunks_read(kept, monkeypatch):
    read, part = [], kept._part
    monkeypatch.setattr(kept, "_part", lambda *ends: read.append(ends) or part(*ends))
    return read


def test_rows_are_read_in_the_order_asked_and_only_their_chunks(kept, monkeypatch):
    read = chunks_read(kept, monkeypatch)

    found = kept.read([190, 3, 3, 5])

    assert found[:, 0].tolist() == [760, 12, 12, 20]
    assert read == [(3, 6), (190, 191)]
    assert kept.read([]).shape == (0, 4)


@pytest.mark.parametrize("size", [1, 2 * 64 * 16, 1 << 20])
@pytest.mark.parametrize("rows", [range(200), [0, 63, 64, 199], [70]])
def test_blocks_are_the_rows_in_their_order(kept, rows, size):
    blocks = list(kept.blocks(np.array(rows), size=size))

    index = np.concatenate([rows for rows, _ in blocks])
    values = np.concatenate([values for _, values in blocks])
    assert index.tolist() == list(rows)
    np.testing.assert_array_equal(values, kept.read(rows))
    assert max(len(values) for _, values in blocks) <= max(64, size // 16)


def test_no_block_is_larger_than_asked(kept, monkeypatch):
    read = chunks_read(kept, monkeypatch)

    list(kept.blocks(np.arange(200), size=2 * 64 * 16))

    assert read == [(0, 128), (128, 200)]
    assert list(kept.blocks(np.empty(0, np.int64))) == []


def test_damage_is_told_with_the_way_out(kept):
    chunk = kept.store.path / "embeddings" / "one" / "values" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9])

    with pytest.raises(StoreError, match="embeddings/one cannot be read") as caught:
        kept.read([0])
    assert "nf2vec encode" in caught.value.hint
