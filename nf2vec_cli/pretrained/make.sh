#!/usr/bin/env bash
# Make the encoders that ship again. SHAPES holds the meshes of objects.csv as CLASS/SPLIT/NAME.ply
# and nothing else.
# The settings of `train` are those that they were made with: its defaults have changed since.
set -euo pipefail
shapes=${1:?usage: make.sh SHAPES OUT}
out=${2:?usage: make.sh SHAPES OUT}

for field in sdf udf; do
  nf2vec fit "$shapes" --field "$field" --store "$out/$field.zarr"
  nf2vec train "$out/$field.zarr" --set probes=19 --set components=128 --set embedding=320 \
    --set moves=0 --out "$out/$field-small.safetensors"
done
