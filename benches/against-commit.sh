#!/usr/bin/env bash
# Cycles a packet of driver and back end in turn on one core, of what is checked out and of another commit, in turn: no
# noise between cores. Builds the other commit in a work tree of its own under target/. A case means the same in both if
# benches/src did not change between them: `git diff REV -- benches/src`.
#
#   benches/against-commit.sh REV [--rounds N] [CASE …]
set -eu
[ $# -ge 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
commit=$(git rev-parse --short "$1^{commit}") rounds=10
shift
if [ "${1:-}" = --rounds ]; then rounds=$2; shift 2; fi
cases=("${@:-64}")
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tree=$target/against/$commit
[ -d "$tree" ] || git worktree add --quiet --detach "$tree" "$commit"
cargo build --quiet --release -p chainplane-benches --bin turns
(cd "$tree" && CARGO_TARGET_DIR=$target/against/build cargo build --quiet --release -p chainplane-benches --bin turns)
programs=("$target/release/turns" "$target/against/build/release/turns") names=(now "$commit")
for round in $(seq "$rounds"); do
  for side in $((round % 2)) $((1 - round % 2)); do
    for case in "${cases[@]}"; do
      taskset -c 0 "${programs[$side]}" --rounds 1 "$case" | awk -v what="$case" -v round="$round" -v name="${names[$side]}" '$1 == what { print what, round, name, $2 }'
    done
  done
done | sort -k1,1 -k2,2n -k3,3 | awk -v commit="$commit" '
  { cycles[$1, $2, $3] = $4; if (!($1 in seen)) { seen[$1] = 1; order[++cases] = $1 } if ($2 > rounds) rounds = $2 }
  function sort(i, j, t) { for (i = 2; i <= rounds; i++) for (j = i; j > 1 && list[j-1] > list[j]; j--) { t = list[j]; list[j] = list[j-1]; list[j-1] = t } }
  function median() { sort(); return rounds % 2 ? list[(rounds+1)/2] : (list[rounds/2] + list[rounds/2+1]) / 2 }
  END {
    printf "| case | cycles a packet now | at %s | ratio of pairs: median (lowest–highest) |\n| --- | --- | --- | --- |\n", commit
    for (i = 1; i <= cases; i++) {
      what = order[i]
      for (r = 1; r <= rounds; r++) list[r] = cycles[what, r, "now"]; now = median()
      for (r = 1; r <= rounds; r++) list[r] = cycles[what, r, commit]; old = median()
      for (r = 1; r <= rounds; r++) list[r] = cycles[what, r, commit] ? cycles[what, r, "now"] / cycles[what, r, commit] : 0
      ratio = median()
      printf "| %s | %.1f | %.1f | %.2f (%.2f–%.2f) |\n", what, now, old, ratio, list[1], list[rounds]
    }
  }'
