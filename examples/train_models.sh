#!/usr/bin/env bash
# Train the models of faces, textures or photographs, one processor core a call: from small to large, reconstruction before the
# patch critic, each step from the weights of the one before, with attention and without. Start it again after an
# interruption: finished steps are left out, the others go on.
#   bash examples/train_models.sh faces|textures|photos DATA RUNS [OVERRIDE ...]     DATA/faces/train, DATA/faces/val, ...
set -euo pipefail
lane=${1:?faces, textures or photos}
data=$(realpath "${2:?DATA: the folder of photographs}")
runs=$(realpath -m "${3:?RUNS: where to write}")
shift 3
overrides=("$@")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { # NAME [OVERRIDE ...]
    local folder="$runs/$1"
    shift
    [ -e "$folder/done" ] && return
    "${PYTHON:-.venv/bin/python}" train.py data_dir="$data" output="$folder" resume=auto "$@" "${overrides[@]}"
    touch "$folder/done"
}

from() { # NAME: the override that starts from this step
    echo "initial_weights='$runs/$1/checkpoints/last.ckpt'"
}

case $lane in
faces)
    for model in contextual baseline; do
        step "faces_64_$model" experiment=faces_64 model=$model
        step "faces_128_$model" experiment=faces_128 model=$model updates=6000 "$(from "faces_64_$model")"
        step "faces_64_${model}_adversarial" experiment=faces_64 model=$model variant=adversarial updates=2500 \
            "$(from "faces_64_$model")"
        step "faces_128_${model}_adversarial" experiment=faces_128 model=$model variant=adversarial updates=3000 \
            model.critics.patch.depth=6 "$(from "faces_128_$model")"
    done
    for seed in 1 2; do
        for model in contextual baseline; do
            step "faces_64_${model}_seed_$seed" experiment=faces_64 model=$model seed=$seed
        done
    done
    ;;
textures)
    for model in contextual baseline; do
        step "lattices_64_$model" experiment=textures_64 model=$model lattices=1 '+dataset.validation_crop=${crop}'
        step "textures_64_$model" experiment=textures_64 model=$model updates=3000 "$(from "lattices_64_$model")"
        step "textures_64_${model}_adversarial" experiment=textures_64 model=$model variant=adversarial updates=750 \
            "$(from "textures_64_$model")"
    done
    for model in contextual baseline; do
        step "textures_128_$model" experiment=textures_128 model=$model "$(from "textures_64_$model")"
        step "textures_128_${model}_adversarial" experiment=textures_128 model=$model variant=adversarial updates=1000 \
            "$(from "textures_128_$model")"
    done
    ;;
photos) # every kind of photographs in DATA; from the weights in the repository
    folders=("dataset.train.path='$data/*/train/**/*'" "dataset.validation.path='$data/*/val/**/*'")
    step photos_64 experiment=textures_64 updates=2000 initial_weights=weights/textures_64_contextual "${folders[@]}"
    step photos_128 experiment=photos_128 optimizer.lr=7e-4 "$(from photos_64)"
    step photos_128_adversarial experiment=photos_128 variant=adversarial optimizer.lr=3e-4 updates=1500 "$(from photos_128)"
    "${PYTHON:-.venv/bin/python}" examples/combine_models.py join contextual_w16 \
        "$runs/photos_128_adversarial/checkpoints/last.ckpt" "$runs/photos_128_joined"
    step photos_128_sharp experiment=photos_128 variant=adversarial optimizer.lr=3e-4 updates=1500 \
        model.generator.residual=coarse 'model.freeze=[coarse_network]' "initial_weights='$runs/photos_128_joined'"
    step photos_256 experiment=photos_256 variant=adversarial loss.adversarial_weight=0.03 "$(from photos_128_sharp)"
    "${PYTHON:-.venv/bin/python}" examples/combine_models.py average "$runs/photos_128_sharp/checkpoints/last.ckpt" \
        "$runs/photos_256/checkpoints/last.ckpt" "$runs/photos_256_averaged" --share 0.3
    ;;
*)
    echo "expected faces, textures or photos, got $lane" >&2
    exit 2
    ;;
esac
