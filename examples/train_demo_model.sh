#!/usr/bin/env bash
# Train the model in `weights` and its two rivals, which share one first stage: it alone at 64 and 128 pixels, two networks with
# it at 128 and 256, the first stage alone for longer at 256, and at last all three from there, with two seeds.
# Start it again after an interruption: finished steps are left out, the others go on.
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

from() { # NAME ...: the override that starts from these steps
    local files="" name
    for name in "$@"; do files+="${files:+,}'$runs/$name/checkpoints/last.ckpt'"; done
    echo "initial_weights=[$files]"
}

step coarse_64 experiment=demo_model_64 model=coarse_only
step coarse_128 experiment=demo_model_128 model=coarse_only updates=3000 "$(from coarse_64)"
for model in contextual baseline; do
    step "${model}_128" experiment=demo_model_128 model=$model "$(from coarse_128)"
    step "${model}_256" experiment=demo_model_256 model=$model "$(from "${model}_128")"
done
step coarse_256 experiment=demo_model_256 model=coarse_only updates=3600 trainer.val_check_interval=600 mask=mostly_rectangles \
    "$(from baseline_256)"
for seed in 0 1; do
    for model in contextual baseline; do
        step "${model}_$seed" experiment=demo_model model=$model seed=$seed "$(from "${model}_256" coarse_256)"
    done
    step "coarse_only_$seed" experiment=demo_model model=coarse_only seed=$seed "$(from coarse_256)"
done
