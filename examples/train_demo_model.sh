#!/usr/bin/env bash
# Train the model in `weights` and its two rivals, which share one first stage. It learns to make images, at 64, 128 and 256
# pixels; then to add to a smooth filling, at 128 and 256. Two second stages follow on it, each at 128 and 256.
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
    "${PYTHON:-.venv/bin/python}" train.py data_dir="$data" output="$folder" resume=auto "$@" "${overrides[@]}"
    touch "$folder/done"
}

from() { # NAME ...: the override that starts from these steps
    local files="" name
    for name in "$@"; do files+="${files:+,}'$runs/$name/checkpoints/last.ckpt'"; done
    echo "initial_weights=[$files]"
}

images=model.generator.residual=false
first=(model=coarse_only repeated_crop.probability=0 optimizer.lr=1e-3)
second=("model.freeze=[coarse_network]") # trained alone
step coarse_64 experiment=demo_model_64 "${first[@]}" $images
step coarse_128 experiment=demo_model_128 "${first[@]}" $images updates=3000 "$(from coarse_64)"
step coarse_256 experiment=demo_model "${first[@]}" $images updates=3600 "$(from coarse_128)"
step residual_128 experiment=demo_model_128 "${first[@]}" updates=4000 "$(from coarse_256)"
step residual_256 experiment=demo_model "${first[@]}" updates=1800 "$(from residual_128)"
for model in contextual baseline; do
    step "${model}_128" experiment=demo_model_128 model=$model "${second[@]}" "$(from residual_256)"
    step "$model" experiment=demo_model model=$model "${second[@]}" "$(from "${model}_128")"
done
