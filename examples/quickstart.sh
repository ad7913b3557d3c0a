#!/usr/bin/env bash
# Twelve real shapes to neural fields and back: about a minute on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

nf2vec fit examples/shapes --field sdf --store ds.zarr
nf2vec info ds.zarr
nf2vec check ds.zarr
nf2vec reconstruct ds.zarr --out meshes
