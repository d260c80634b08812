#!/usr/bin/env bash
# From a fresh clone to a language model that HERO has made better, on two cores without a GPU, in five minutes:
#   bash deploy/quickstart.sh                       everything into runs/quickstart
#   bash deploy/quickstart.sh runs/seed1 --run.seed 1
# Any setting may follow as a flag. Run again, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE  # else each of the many processes compiles what it imports anew

root=runs/quickstart
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then root=$1; shift; fi
config=deploy/configs/quickstart.toml
paths=(--model.policy "$root/policy" --reward_model.model "$root/reward-model")

echo "[1/4] install" >&2
bash deploy/install.sh
hero=.venv/bin/hero
echo "[2/4] a small policy and its cold start on worked solutions" >&2
[ -f "$root/policy/sft.json" ] || "$hero" sft "$config" --sft.out "$root/policy" "$@"
echo "[3/4] a reward model from labelled samples of that policy" >&2
[ -f "$root/reward-model/rm.json" ] || "$hero" rm "$config" "${paths[@]}" --rm.out "$root/reward-model" "$@"
echo "[4/4] HERO: one learner, one actor, one scorer; held-out accuracy before and after" >&2
exec "$hero" up "$config" "${paths[@]}" --run.folder "$root/hero" "$@"
