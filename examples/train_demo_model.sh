#!/usr/bin/env bash
# Train the model in `weights` and its two rivals of equal budget: first the first stage alone, at 64 and 128 pixels, then each
# network at 128 and at 256. Start it again after an interruption: finished steps are left out, the others go on.
#   bash examples/train_demo_model.sh DATA RUNS [OVERRIDE ...]      DATA/KIND/train and DATA/KIND/val hold photographs
set -euo pipefail
data=$(realpath "${1:?DATA: the folder of photographs}")
runs=$(realpath -m "${2:?RUNS: where to write}")
shift 2
overrides=("$@")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { # NAME [OVERRIDE ...]
    local folder="$runs/$1"
    shift
    [ -e "$folder/done" ] && return
    "${PYTHON:-.venv/bin/python}" train.py data_dir="$data" hydra.run.dir="$folder" resume=auto "$@" "${overrides[@]}"
    touch "$folder/done"
}

step coarse_64 experiment=demo_model_64 model=coarse_only
step coarse_128 experiment=demo_model_128 model=coarse_only updates=3000 initial_weights="$runs/coarse_64/checkpoints/last.ckpt"
for model in contextual baseline coarse_only; do
    step "${model}_128" experiment=demo_model_128 model=$model initial_weights="$runs/coarse_128/checkpoints/last.ckpt"
    step "$model" experiment=demo_model model=$model initial_weights="$runs/${model}_128/checkpoints/last.ckpt"
done
