#!/usr/bin/env bash
# What to do with the first hour on a GPU: tests, ceilings and benchmarks, two processes, then the face model for as long
# as there is time. Everything lands in one folder; start it again after an interruption, finished steps are left out.
#   bash examples/first_gpu_hour.sh DATA RESULTS           DATA/faces/train and DATA/faces/val, aligned faces
#   MINUTES=30       for everything; the face model gets what is left of it
#   DEVICE=cpu SMALL=1 MINUTES=10                          to try the script itself, on a processor
set -uo pipefail
data=$(realpath "${1:?DATA: the folder of photographs}")
results=$(realpath -m "${2:?RESULTS: where to write}")
device=${DEVICE:-cuda}
small=${SMALL:-}
python=${PYTHON:-.venv/bin/python}
end=$((SECONDS + 60 * ${MINUTES:-30}))
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p "$results"

step() { # NAME COMMAND ...: output goes to NAME.log; a step that fails is told and does not stop the others
    local name=$1
    shift
    [ -e "$results/$name.done" ] && return
    local left=$((end - SECONDS))
    [ "$left" -gt 30 ] || { echo "$name: no time left"; return; }
    echo "$name: $*"
    if timeout --signal=TERM "$left" "$@" >"$results/$name.log" 2>&1; then
        touch "$results/$name.done"
    else
        echo "$name: failed or out of time, see $results/$name.log"
    fi
    tail -n 3 "$results/$name.log" | sed 's/^/    /'
}

benchmark() { # NAME OVERRIDE ...
    step "benchmark_$1" "$python" -m gicinpaint.cli benchmark "${@:2}" output="$results/benchmark_$1"
}

train() { # OVERRIDE ...: until the time is up, resumed where it stopped
    local minutes=$(((end - SECONDS) / 60 - 1))
    [ "$minutes" -gt 0 ] || { echo "faces: no time left"; return; }
    step faces "$python" train.py data_dir="$data" output="$results/faces" resume=auto \
        trainer.max_time="00:00:$(printf %02d $((minutes > 59 ? 59 : minutes))):00" "$@"
}

if [ "$device" = cuda ]; then accelerator=gpu; else accelerator=cpu; fi
if [ -z "$small" ]; then
    attention=(benchmark.sizes=[64,128] "benchmark.dtypes=[float32,bfloat16]")
    generator=(benchmark.sizes=[256,512] "benchmark.dtypes=[float32,bfloat16]")
    training=("benchmark.batch_sizes=[1,16]" "benchmark.dtypes=[float32,bfloat16]")
    roofline=(benchmark.size=256 benchmark.batch_size=16)
    faces=(experiment=faces_gpu)
else
    attention=(benchmark.sizes=[8] benchmark.channels=8 limits.rounds=1)
    generator=(benchmark.sizes=[64] benchmark.width=8 limits.rounds=1)
    training=(benchmark.sizes=[32] "benchmark.batch_sizes=[2]" benchmark.width=4 limits.rounds=1)
    roofline=(benchmark.size=32 benchmark.width=8 limits.rounds=1)
    faces=(experiment=faces_gpu model.generator.width=8 dataset.image_size=64 "mask.box=[40,40]"
        "mask.masks.0.inset=[16,16]" "dataset.validation_mask.box=[32,32]" dataset.batch_size=4 dataset.workers=0
        updates=20 model.warmup_steps=10 trainer.val_check_interval=10 trainer.limit_val_batches=2)
fi
step machine "$python" -c "
import os, torch
from gicinpaint.benchmark.run import machine
print(machine('$device'))
print(*(f'{name}={value}' for name, value in vars(torch.cuda.get_device_properties(0)).items()) if '$device' == 'cuda' else '')"
step tests "$python" -m pytest -q -m gpu tests/test_gpu.py
benchmark roofline benchmark=roofline benchmark.device="$device" "${roofline[@]}"
benchmark roofline_bf16 benchmark=roofline benchmark.device="$device" benchmark.dtype=bfloat16 "${roofline[@]}"
benchmark attention benchmark=attention device="$device" "${attention[@]}"
benchmark generator benchmark=generator device="$device" "${generator[@]}"
benchmark training benchmark=training_step device="$device" "${training[@]}"
step two_processes "$python" -m pytest -q tests/training/test_ddp.py -k "not slow"
train trainer.accelerator="$accelerator" "${faces[@]}"
if [ -e "$results/faces/checkpoints/last.ckpt" ]; then
    step weights "$python" -m gicinpaint.cli convert source="$results/faces/checkpoints/last.ckpt" \
        output="$results/weights" dtype=float16
fi
du -sh "$results" | sed 's/^/everything: /'
