"""Encoder and decoder together, by their settings: what training makes and encoding uses."""

from __future__ import annotations

from torch import Tensor, nn

from nf2vec_cli.config.train import TrainConfig
from nf2vec_cli.models.decoder import Decoder
from nf2vec_cli.models.encoder import AlignedEncoder, RowsEncoder
from nf2vec_cli.models.network import NetworkSpec
from nf2vec_cli.models.split import SplitDecoder, SplitEncoder


class AutoEncoder(nn.Module):
    """Weights to embedding to field (paper, section III)."""

    def __init__(self, spec: NetworkSpec, config: TrainConfig) -> None:
        super().__init__()
        self.encoder: RowsEncoder | AlignedEncoder | SplitEncoder
        self.decoder: Decoder
        if config.encoder_arch == "split":
            self.encoder = SplitEncoder(
                spec,
                components=config.components,
                probes=config.probes,
                width=config.tail,
                embedding=config.embedding,
                noise=config.noise,
            )
            self.decoder = SplitDecoder(
                config.embedding,
                hidden=config.hidden,
                octaves=config.octaves,
                coding=config.coding,
            )
            return
        if config.encoder_arch == "paper":
            self.encoder = RowsEncoder(spec, widths=config.widths, embedding=config.embedding)
        else:
            self.encoder = AlignedEncoder(
                spec,
                components=config.components,
                probes=config.probes,
                leading=config.leading,
                width=config.tail,
                embedding=config.embedding,
                dropout=config.dropout,
                noise=config.noise,
            )
        self.decoder = Decoder(
            config.embedding,
            hidden=config.hidden,
            octaves=config.octaves,
            outputs=spec.outputs,
            reads=config.embedding - config.directions,
            coding=config.coding,
        )

    def forward(self, theta: Tensor, coords: Tensor) -> Tensor:  # [B, P], [B, M, 3] -> [B, M, V]
        """Embed fields and give the decoder's raw outputs at points."""
        found: Tensor = self.decoder(self.encoder(theta), coords)
        return found
