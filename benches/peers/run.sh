#!/bin/bash
# Measures ours and the peers by a suite (performance.yaml where none is named), on a machine with nothing else to do,
# and prints the tables. Needs root for the peers' huge pages; install.sh installs them. JSON, CSV, a page with plots
# and a picture go to target/bench/.
#   run.sh [SUITE [OPTION...]]        options are those of `chainplane bench suite`, as `--resume --for 3m`
set -e
here=$(dirname "$(readlink -f "$0")")
suite=$(readlink -f "${1:-$here/performance.yaml}")
shift || true
cd "$here/../.."
cargo build --quiet --release -p chainplane
target=${CARGO_TARGET_DIR:-target}
out=$target/bench/$(basename "$suite" .yaml)
mkdir -p "$target/bench"
status=0
"$target/release/chainplane" bench suite "$suite" --json "$out.json" --csv "$out.csv" --html "$out.html" --picture "$out.svg" \
  --markdown "$out.md" "$@" || status=$?
[ ! -s "$out.md" ] || { echo; cat "$out.md"; }
exit $status
