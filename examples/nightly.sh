#!/usr/bin/env bash
# Fit what is new in a folder, embed it, and report in one line: for cron.
#   15 2 * * *  nightly.sh /data/parts /data/parts.zarr >> /var/log/nf2vec.log 2>> /var/log/nf2vec.err
# Exit code: 0 all is well, 7 some shapes were not fitted (the line counts them), 8 another run was at work
# for longer than WAIT seconds, else that of the step that failed. FIELD (sdf) and WAIT (600) may be set.
set -uo pipefail
shapes=${1:?folder of shapes} store=${2:?store}

say() { printf '%s nf2vec nightly %s: %s\n' "$(date -u +%FT%TZ)" "$store" "$1"; }

fitted=$(nf2vec fit "$shapes" --field "${FIELD:-sdf}" --store "$store" --wait "${WAIT:-600}" --json)
code=$?
# 7: some shapes were not fitted, the others are to be embedded all the same
[ "$code" -eq 0 ] || [ "$code" -eq 7 ] || { say "fit stopped with exit code $code"; exit "$code"; }

encoded=$(nf2vec encode "$store" --wait "${WAIT:-600}" --json) || {
  failed=$?
  say "encode stopped with exit code $failed"
  exit "$failed"
}

count() { printf '%s' "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$2"; }
say "$(count "$fitted" fitted) fitted, $(count "$fitted" failed) failed, $(count "$encoded" encoded) embedded, $(count "$encoded" skipped) as they were"
exit "$code"
