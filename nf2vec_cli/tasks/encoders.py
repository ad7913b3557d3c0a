"""Find, keep and hand on encoders: in a store, in a safetensors file, or shipped with nf2vec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nf2vec_cli.config.train import TrainConfig
from nf2vec_cli.errors import InputError, StoreError, UsageFault
from nf2vec_cli.models.autoencoder import AutoEncoder
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.store.create import free_name
from nf2vec_cli.store.products import ENCODERS, keys, load_state, save_state
from nf2vec_cli.store.store import UNKNOWN_INIT, Store, open_store
from nf2vec_cli.tasks.loop import State, arrays_of

SUFFIX = ".safetensors"
FACTS = "nf2vec"  # key of a file's metadata that holds the facts as JSON
NEEDED = ("config", "field", "network", "init_hash", "key")
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch.save, pickle


@dataclass(frozen=True)
class Trained:
    """An encoder and its decoder that can be used: key, module, and what it was trained for.

    facts: settings, kind of field, network, init_hash, curve and result, as they were saved.
    """

    key: str
    module: AutoEncoder
    origin: str
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def kind(self) -> str:
        """Give the kind of field."""
        return str(self.facts["field"])

    @property
    def config(self) -> TrainConfig:
        """Give the settings that it was trained with."""
        return _settings(self.facts)

    @property
    def init_hash(self) -> str:
        """Give the hash of the shared init of the fields that it was trained on."""
        return str(self.facts["init_hash"])


def open_encoder(store: Store, name: str | None = None) -> Trained:
    """Find the encoder for a store's fields.

    Args:
        store: the store whose fields are to be embedded, or were.
        name: key in this store, path of another store (its newest) or of a .safetensors file, or
            name of an encoder that ships; None: the newest of this store, else the one that ships
            for its kind of field.

    Raises:
        StoreError: there is none, it belongs to other fields, or it is damaged.
        InputError: a file is no encoder.
    """
    trained = _named(store, name) if name is not None else _own(store)
    _check_fitting(store, trained)
    return trained


def require_known_init(store: Store) -> None:
    """See that the start of a store's fields is known: encoders and `align` compare with it.

    Raises:
        StoreError: the fields came from elsewhere without it.
    """
    if store.imported.get("init") == UNKNOWN_INIT:
        raise StoreError(
            f"the fields of {store.path} came without the init that they start from",
            hint=f"`nf2vec import` them into a new store: `--store {free_name(store.path)}` with "
            "`--init FILE`, or `--init first` if they share one that nobody has",
        )


def find_encoder(name: str | None, *, kind: str, start: str) -> Trained | None:
    """Find an encoder for fields that are in no store.

    Args:
        name: name of one that ships, path of a store (its newest) or of a .safetensors file; None:
            the one that ships for such fields, if there is one.
        kind: the kind of field.
        start: hash of the init that the fields start from.

    Raises:
        InputError: it is for another kind of field or another init, or it is no encoder.
    """
    if name is None:
        return _shipped_for(kind, start)
    if name not in shipped() and not Path(name).exists():
        raise InputError(
            f"there is no encoder {name!r}: none ships by that name, and no store or file has it",
            hint="`nf2vec train STORE --out encoder.safetensors` makes one",
        )
    if Path(name).is_dir():
        trained = open_encoder(open_store(Path(name)))
    else:
        trained = read_encoder(shipped().get(name, Path(name)))
    hint = "without --encoder the weights are compared"
    if trained.kind != kind:
        raise InputError(
            f"encoder {trained.key!r} is for {trained.kind} fields, not {kind}",
            hint=f"`--field {trained.kind}`; {hint}",
        )
    if trained.init_hash != start:
        raise InputError(
            f"encoder {trained.key!r} knows fields from init {trained.init_hash[:12]}, these "
            f"start from {start[:12]}",
            hint=f"`--set` hidden, layers, omega and init_seed as its fields have them; {hint}",
        )
    return trained


def shipped() -> dict[str, Path]:
    """List the encoders that come with nf2vec, by name."""
    folder = Path(str(files("nf2vec_cli") / "pretrained"))
    return {file.stem: file for file in sorted(folder.glob(f"*{SUFFIX}"))}


def keep_encoder(store: Store, trained: Trained) -> None:
    """Copy an encoder into a store that has it not, so that its embeddings can be decoded there."""
    if trained.key not in keys(store, ENCODERS):
        save_state(store, ENCODERS, trained.key, arrays_of(trained.module), **trained.facts)


def require_writable(file: Path) -> None:
    """Refuse a file that cannot be written, before the work of hours.

    Raises:
        UsageFault: it is a folder, or its folder cannot be written to.
    """
    if file.is_dir():
        raise UsageFault(f"{file} is a folder, and a file is to be written")
    part = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        part.unlink()
    except OSError as error:
        raise UsageFault(f"{file} cannot be written: {error.strerror}") from error


def write_encoder(trained: Trained, file: Path) -> None:
    """Write an encoder as a safetensors file, under another name first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    tensors = {n: torch.from_numpy(v) for n, v in arrays_of(trained.module).items()}
    save_file(tensors, part, metadata={FACTS: json.dumps({**trained.facts, "key": trained.key})})
    part.replace(file)


def read_encoder(file: Path) -> Trained:
    """Read what `write_encoder` wrote.

    Raises:
        InputError: it is a pickle, damaged, or not an encoder of nf2vec.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(4)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    if start.startswith(PICKLES):
        raise InputError(
            f"{file} is a pickle, which may run any code when it is read: refused",
            hint="`nf2vec train STORE --out encoder.safetensors` writes an encoder that is safe",
        )
    try:
        with safe_open(file, framework="numpy") as opened:
            facts = json.loads((opened.metadata() or {})[FACTS])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        missing = [name for name in NEEDED if name not in facts]
        if missing:
            raise KeyError(missing[0])
    except KeyError as error:
        raise InputError(f"{file} holds no encoder of nf2vec: {error} is missing") from error
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise InputError(f"{file} is damaged, or no safetensors file: {error}") from error
    return _assembled(str(facts.pop("key")), arrays, facts, origin=str(file))


def _named(store: Store, name: str) -> Trained:
    if name in keys(store, ENCODERS):
        return _from_store(store, name)
    if name in shipped():
        return read_encoder(shipped()[name])
    path = Path(name)
    if path.is_dir():
        home = open_store(path)
        found = keys(home, ENCODERS)
        if not found:
            raise _none(home)
        return _from_store(home, found[-1])
    if path.exists():
        return read_encoder(path)
    known = [*keys(store, ENCODERS), *shipped()]
    raise StoreError(
        f"there is no encoder {name!r}: no key of {store.path}, no store, no file",
        hint=f"there are {', '.join(known)}" if known else f"`nf2vec train {store.path}` makes one",
    )


def _own(store: Store) -> Trained:
    found = keys(store, ENCODERS)
    if found:
        return _from_store(store, found[-1])
    trained = _shipped_for(store.field, store.init_hash)
    if trained is None:
        raise _none(store)
    return trained


def _shipped_for(kind: str, start: str) -> Trained | None:
    known = (read_encoder(file) for file in shipped().values())
    return next((e for e in known if (e.kind, e.init_hash) == (kind, start)), None)


def _none(store: Store) -> StoreError:
    return StoreError(
        f"{store.path} has no encoder, and none ships for its fields",
        hint=f"`nf2vec train {store.path}` makes one",
    )


def _from_store(store: Store, key: str) -> Trained:
    arrays, facts = load_state(store, ENCODERS, key)
    return _assembled(key, arrays, facts, origin=str(store.path))


def _settings(facts: Mapping[str, Any]) -> TrainConfig:
    """Read the settings of an encoder; those from before there were probes, or moves, name none."""
    return TrainConfig.model_validate({"probes": 0, "moves": 0} | facts["config"])


def _assembled(key: str, arrays: State, facts: dict[str, Any], *, origin: str) -> Trained:
    try:
        module = AutoEncoder(NetworkSpec(**facts["network"]), _settings(facts))
        module.load_state_dict({n: torch.from_numpy(v) for n, v in arrays.items()})
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(
            f"encoder {key!r} of {origin} is of another architecture than its settings say: "
            f"{reason}"
        ) from error
    facts = {name: value for name, value in facts.items() if name != "complete"}
    return Trained(key, module.eval(), origin, facts)


def _check_fitting(store: Store, encoder: Trained) -> None:
    hint = (
        f"`nf2vec train {store.path}` makes one for these fields, or `nf2vec fit` the shapes again "
        f"with the settings of {encoder.origin}"
    )
    if encoder.kind != store.field:
        raise StoreError(
            f"encoder {encoder.key!r} is for {encoder.kind} fields, {store.path} holds "
            f"{store.field}",
            hint=hint,
        )
    if encoder.init_hash != store.init_hash:
        raise StoreError(
            f"the fields of {store.path} start from init {store.init_hash[:12]}, encoder "
            f"{encoder.key!r} knows those from {encoder.init_hash[:12]}",
            hint=hint,
        )
