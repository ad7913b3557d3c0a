"""Damaged stores through the commands: each works, or ends with a code and a message of its own."""

import json
import random
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from mutate import mutated

FIXTURES = Path(__file__).parent.parent / "store" / "fixtures"
STORES = ("sdf-compact", "udf-exact", "first", "nerf", "embedded")
SEED, COUNT = 8, 500
CODES = {0, 2, 3, 4, 5, 7, 8}  # those of docs/cli.md that a damaged store may lead to
MEMORY, LIMIT = 3 << 30, 60.0  # bytes and CPU seconds of all commands on one store
VALUES = (
    0, -1, 1, 10**9, 10**12, 10**15, -(10**12), 2**63, 1e308, 0.5, "many", "", None, [], {}, True,
    "nan", [10**15], [10**6, 10**6], [-1], ["x"], "../../x",
)  # fmt: skip
REWRITTEN = (
    "id", "class", "split", "source", "message", "status", "scale", "bits", "transform", "digest",
    "init", "blocks", "parent", "surface",
)  # fmt: skip
CODECS = (
    {"name": "numcodecs.pickle", "configuration": {}},
    {"name": "numcodecs.json2", "configuration": {}},
    {"name": "no such codec", "configuration": {}},
    {"name": "blosc", "configuration": {"cname": "zstd", "clevel": -1}},
)


def unpacked(name, folder):
    with tarfile.open(FIXTURES / f"{name}.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    return folder / f"{name}.zarr"


def leaves(tree, path=()):
    """Every place in a JSON tree."""
    yield path
    pairs = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in pairs:
        yield from leaves(value, (*path, key))


def edit(data, rng):
    """Set, delete or double one value of a zarr.json."""
    tree = json.loads(data)
    path = rng.choice([p for p in leaves(tree) if p])
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    if rng.random() < 0.15:
        del inner[path[-1]]
    elif path[-1] == "codecs":
        inner["codecs"] = [rng.choice(CODECS), *inner["codecs"][: rng.randrange(3)]]
    else:
        inner[path[-1]] = rng.choice(VALUES)
    return json.dumps(tree).encode()


def rewrite(store, rng):
    """Write what no command would: texts that are no UTF-8, weights that are NaN, odd statuses."""
    import zarr

    root = zarr.open_group(store, mode="r+")
    slots = root["status"].shape[0]
    noise = np.random.default_rng(rng.randrange(2**32))
    for name in rng.sample(REWRITTEN, 2):
        if name not in root:
            continue
        array = root[name]
        if array.dtype.kind == "f":
            array[...] = rng.choice([np.nan, np.inf, -1e38, 0])
        else:
            info = np.iinfo(array.dtype)
            array[...] = noise.integers(info.min, info.max, array.shape, array.dtype, endpoint=True)
    return slots


def damage(store, rng):
    """Damage a store in one way or two; say how."""
    told = []
    for _ in range(rng.choice([1, 1, 2])):
        files = sorted(file for file in store.rglob("*") if file.is_file())
        metadata = [file for file in files if file.name == "zarr.json"]
        way = rng.choice(["edit", "edit", "edit", "mutate", "delete", "swap", "rewrite", "kind"])
        chosen = rng.choice(files)
        if way == "edit":
            chosen = store / "zarr.json" if rng.random() < 0.4 else rng.choice(metadata)
            try:
                chosen.write_bytes(edit(chosen.read_bytes(), rng))
            except (ValueError, IndexError, KeyError, TypeError, AttributeError):
                continue
        elif way == "mutate":
            noise = np.random.default_rng(rng.randrange(2**32))
            chosen.write_bytes(mutated(chosen.read_bytes(), rng.choice(files).read_bytes(), noise))
        elif way == "delete":
            if rng.random() < 0.3:
                chosen = chosen.parent if chosen.parent != store else chosen
                shutil.rmtree(chosen) if chosen.is_dir() else chosen.unlink()
            else:
                chosen.unlink()
        elif way == "swap":
            other = rng.choice(files)
            first, second = chosen.read_bytes(), other.read_bytes()
            chosen.write_bytes(second)
            other.write_bytes(first)
        elif way == "rewrite":
            try:
                rewrite(store, rng)
            except Exception:  # zarr cannot open it any more: damaged enough
                continue
        else:
            chosen.unlink()
            chosen.mkdir() if rng.random() < 0.5 else chosen.symlink_to(chosen)
        told.append(f"{way} {chosen.relative_to(store)}")
    return ", ".join(told)


def lines_for(store, out):
    """The commands that every damaged store goes through."""
    yield ["info", store]
    yield ["info", store, "--objects", "--json"]
    yield ["check", store]
    yield ["reconstruct", store, "--out", out, "--resolution", "16", "--jobs", "1"]
    yield ["encode", store]
    yield ["retrieve", store, "--query", "chair/chair"]
    yield ["fit", out.parent / "shapes", "--field", "sdf", "--store", store, "--jobs", "1"]
    yield ["check", store, "--repair"]
    yield ["info", store]


DRIVER = """
import sys, io, json, time, random, contextlib, resource, traceback
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
import test_fuzz_stores as fuzz
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    fuzz.one(number, Path(sys.argv[4]))
"""


def tell(record):
    """Hand a record to the parent."""
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def one(number, folder):
    """Damage one store and try everything on it; print a line of JSON. Runs in a child process."""
    from typer.testing import CliRunner

    from nf2vec_cli.cli import app

    rng = random.Random(SEED * 10_000 + number)
    name = STORES[number % len(STORES)]
    here = folder / f"{number:04}"
    (here / "shapes" / "lamp").mkdir(parents=True)
    shapes = Path(__file__).parent.parent.parent / "examples" / "shapes"
    shutil.copy(shapes / "lamp" / "lamp.ply", here / "shapes" / "lamp")
    store = unpacked(name, here)
    how = damage(store, rng)
    tell({"number": number, "how": f"{name}: {how}"})
    for line in lines_for(store, here / "out"):
        began = time.process_time()
        ended = CliRunner().invoke(app, [str(word) for word in line], prog_name="nf2vec")
        told = {
            "line": line[0],
            "code": ended.exit_code,
            "seconds": round(time.process_time() - began, 2),
            "error": "" if ended.exit_code == 0 else ended.stderr[-300:],
            "trace": isinstance(ended.exception, BaseException)
            and not isinstance(ended.exception, SystemExit),
        }
        tell(told)
    shutil.rmtree(here, ignore_errors=True)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tell({"done": number, "memory": most})


def survey(first, last, folder):
    """Run stores in children that may be killed; give what is wrong with any, and the codes."""
    wrong, codes, number, most = [], {}, first, 0
    paths = json.dumps([str(Path(__file__).parent), str(Path(__file__).parent.parent / "shapes")])
    while number < last:
        line = [sys.executable, "-c", DRIVER, paths, str(number), str(last), str(folder)]
        how, spent = "", 0.0
        child = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
        for text in child.stdout:
            told = json.loads(text)
            if "how" in told:
                number, how, spent = told["number"], told["how"], 0.0
            elif "done" in told:
                number, most = told["done"] + 1, max(most, told["memory"])
            else:
                spent += told["seconds"]
                codes[told["code"]] = codes.get(told["code"], 0) + 1
                if (
                    told["code"] not in CODES
                    or told["trace"]
                    or not (told["error"] or told["code"] == 0)
                ):
                    wrong.append(f"{number} ({how}): {told}")
                if spent > LIMIT:
                    wrong.append(f"{number} ({how}): {spent} s")
        child.stdout.close()
        if child.wait() != 0:
            wrong.append(f"{number} ({how}): the process died with {child.returncode}")
            number += 1
    return wrong, codes, most


@pytest.mark.slow
def test_every_damaged_store_works_or_says_what_is_wrong(tmp_path):
    wrong, codes, most = survey(0, COUNT, tmp_path)

    print(f"\n{COUNT} stores: exit codes {dict(sorted(codes.items()))}, {most / 2**30:.2f} GiB")  # noqa: T201
    assert not wrong, "\n".join(wrong)
    assert most < MEMORY


def test_a_few_damaged_stores(tmp_path):
    wrong, _, _ = survey(COUNT, COUNT + 2, tmp_path)

    assert not wrong, "\n".join(wrong)
