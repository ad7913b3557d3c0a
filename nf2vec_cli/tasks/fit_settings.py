"""Settings that a fit refuses: those without meaning, and others than the store's."""

from __future__ import annotations

from pathlib import Path

import torch

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.errors import ConfigError, DeviceError, Nf2vecError, StoreError, UsageFault
from nf2vec_cli.fields import FieldName
from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.shapes.pictures import colour_of

# settings that name the shared init: a store has one, and fields from two cannot be compared
INIT = {"hidden", "layers", "omega", "octaves", "biases", "init_seed"}


def refuse_graphs(field: FieldName, device: torch.device) -> None:
    """Refuse CUDA graphs where there can be none."""
    if field is FieldName.nerf:
        raise UsageFault(
            "rays take as many samples as they meet, which no CUDA graph can hold",
            hint="leave out `--cuda-graphs`",
        )
    if device.type != "cuda":
        raise DeviceError(
            f"CUDA graphs need a CUDA device, not {str(device)!r}",
            hint="`--device cuda`, or leave out `--cuda-graphs`",
        )


def refuse_settings(refs: list[ShapeRef], field: FieldName, config: FitConfig | None) -> None:
    """Refuse settings without meaning: a surface that was cut is open, and has no inside."""
    pictures = field is FieldName.nerf
    if pictures and any(ref.copy for ref in refs):
        raise ConfigError(
            "a copy of other proportions has no pictures", hint="leave out `--augment`"
        )
    if config is None:
        return
    if config.background:
        colour_of(config.background)
    if config.target_error and pictures:
        raise ConfigError(
            "target_error: fits of nerf take all their steps", hint="leave out `--target-error`"
        )
    solid = field is FieldName.occ and config.occupancy == "solid"
    if config.crop < 1 and pictures:
        raise ConfigError(
            f"crop {config.crop:g} cuts surfaces, and nerf is fitted to pictures",
            hint="leave out `--crop`, or `--field udf`",
        )
    if config.crop < 1 and (field is FieldName.sdf or solid):
        kind = "solid occupancy" if solid else "sdf"
        raise ConfigError(
            f"crop {config.crop:g} leaves surfaces that are open, and {kind} needs an inside",
            hint="`--field udf` fits open surfaces",
        )


def other_settings(store: Path, kept: FitConfig, asked: FitConfig) -> Nf2vecError:
    """Say how the settings asked for differ from those that a store was made with."""
    ours, theirs = kept.model_dump(mode="json"), asked.model_dump(mode="json")
    differ = [k for k in ours if ours[k] != theirs[k]]
    told = "; ".join(f"{k} {ours[k]} there, {theirs[k]} asked for" for k in differ)
    if INIT & set(differ):
        return StoreError(
            f"{store} starts its fields from another init: {told}",
            hint=f"`--store {store.with_name('other.zarr')}`, or leave these settings out",
        )
    return ConfigError(
        f"{store} was made with other settings: {told}",
        hint="leave the settings out to go on as the store was begun, or name a new store",
    )
