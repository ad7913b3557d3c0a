"""What a store has learnt as files: an encoder, or a head that tells classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from nf2vec_cli.config.classify import ClassifyConfig
from nf2vec_cli.errors import StoreError
from nf2vec_cli.foreign.onnx_encoder import classifier_graph, encoder_graph
from nf2vec_cli.models.classifier import Classifier
from nf2vec_cli.shapes.write import write_bytes
from nf2vec_cli.store.products import HEADS, keys, load_state
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.class_lesson import TASK, new_head
from nf2vec_cli.tasks.encoders import FACTS, open_encoder, write_encoder
from nf2vec_cli.tasks.heads import open_head
from nf2vec_cli.tasks.loop import arrays_of


def write_encoder_file(store: Store, file: Path, form: str, key: str | None, *, dry: bool) -> str:
    """Write an encoder, as `open_encoder` finds it, with its decoder or (ONNX) alone; its key."""
    trained = open_encoder(store, key)
    if dry:
        return trained.key
    if form == "safetensors":
        write_encoder(trained, file)
        return trained.key
    facts = {name: trained.facts[name] for name in ("field", "network", "init_hash")}
    graph = encoder_graph(trained.module.encoder, facts | {"encoder": trained.key})
    write_bytes(graph, file)
    return trained.key


def write_classifier(store: Store, file: Path, form: str, key: str | None, *, dry: bool) -> str:
    """Write a head that tells classes; its key.

    Raises:
        StoreError: there is none, or none of this key.
    """
    known = keys(store, f"{HEADS}/{TASK}")
    if not known or (key is not None and key not in known):
        hint = f"there are {', '.join(known)}" if known else f"run `nf2vec classify {store.path}`"
        raise StoreError(f"{store.path} has no classifier{f' {key!r}' if key else ''}", hint=hint)
    key = key or known[-1]
    if dry:
        return key
    arrays, _ = load_state(store, f"{HEADS}/{TASK}", key)

    def make(facts: Any) -> Classifier:
        config = ClassifyConfig.model_validate(facts["config"])
        return new_head(len(arrays["centre"]), len(facts["classes"]), config)

    module, facts = open_head(store, TASK, key, make)
    told = {name: facts[name] for name in ("classes", "encoder", "init_hash", "config")}
    if form == "onnx":
        write_bytes(classifier_graph(module, told), file)
    else:
        tensors = {name: torch.from_numpy(a) for name, a in arrays_of(module).items()}
        write_bytes(save(tensors, metadata={FACTS: json.dumps(told)}), file)
    return key
