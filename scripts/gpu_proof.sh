#!/usr/bin/env bash
# Everything that is to be shown on a GPU, in slices that resume.
#
#   scripts/gpu_proof.sh                              all slices that fit into --minutes
#   scripts/gpu_proof.sh --status                     which slices are done
#   scripts/gpu_proof.sh --slice core-1024            one of them
#   scripts/gpu_proof.sh --device cpu --small         the same on a CPU, architectures narrowed
#
# Needs a Python with torch, diffusers and this project's other requirements (PYTHON=..., default
# python3), and no network. Call it again until it says that all slices are done: each call goes on
# where the last one stopped, be it by time, by Ctrl-C or killed. --minutes (default 8.5) is for
# one call; a cell under way when it is over is measured anew, so let it be more where nothing
# limits a call. Records, a report and the self-check's lines land in --out.
#
# Exit: 0 all slices are done and the self-check holds, 1 a known answer is broken or a slice
# failed, 2 wrong usage or something is missing here, 75 stopped by time: call again.

set -u -o pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
device=cuda
small=no
minutes=8.5
out=
only=
status=no

usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

while [ $# -gt 0 ]; do
  case $1 in
    --device | --minutes | --out | --slice)
      if [ $# -lt 2 ]; then echo "gpu_proof: $1 needs a value" >&2; exit 2; fi
      case $1 in
        --device) device=$2 ;;
        --minutes) minutes=$2 ;;
        --out) out=$2 ;;
        --slice) only=$2 ;;
      esac
      shift 2 ;;
    --small) small=yes; shift ;;
    --status) status=yes; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "gpu_proof: unknown option $1; see --help" >&2; exit 2 ;;
  esac
done
if [ "$device" = cpu ] && [ "$small" = no ]; then
  echo "gpu_proof: at full size a CPU takes days; add --small" >&2
  exit 2
fi
if ! [[ $minutes =~ ^[0-9]+(\.[0-9]+)?$ ]]; then
  echo "gpu_proof: --minutes $minutes is no number" >&2
  exit 2
fi
out=${out:-runs/gpu-proof$([ "$small" = yes ] && echo -small)}
mkdir -p "$out" || exit 2
config=configs/gpu-sdxl.yaml
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1

# A slice is a name and the cells that it measures; the most telling come first. Each has its own
# baseline, so that its ratios come from one interleaved session.
slices=(core-1024 core-512 lossy-1024 cold-1024 edits-512 i2i-1024 alone-1024 steps-30
        batch-4 bf16 modes-512 modes-1024 edits-1024 lossy-512 cold-512 i2i-512)
warm=/cache=warm
cells_of() {
  case $1 in
    core-1024 | core-512)
      local s=t2i/${1#core-}
      echo "$s/none $s/torch-compile$warm $s/torch-compile-regional$warm $s/tuned$warm" ;;
    lossy-1024) echo "t2i/1024/none t2i/1024/tuned-cache t2i/1024/tuned-fp8 t2i/1024/tuned-int8" ;;
    lossy-512) echo "t2i/512/none t2i/512/tuned-cache" ;;
    cold-1024)
      local s=t2i/1024
      echo "$s/none $s/torch-compile/cache=fresh $s/torch-compile-regional/cache=fresh" \
        "$s/tuned/cache=fresh" ;;
    cold-512) echo "t2i/512/none t2i/512/tuned/cache=fresh" ;;
    i2i-*) local s=i2i/${1#i2i-}; echo "$s/none $s/torch-compile$warm $s/tuned$warm" ;;
    edits-*)
      local side=${1#edits-}
      for s in "edit-sd15/$side" "edit-sdxl/$side"; do
        echo "$s/none $s/torch-compile$warm $s/tuned$warm"
      done ;;
    modes-1024)
      local s=t2i/1024
      echo "$s/none $s/torch-compile[mode=reduce-overhead] $s/torch-compile[mode=max-autotune]" \
        "$s/tuned[autotune=true,coordinate_descent=true]" ;;
    modes-512)
      local s=t2i/512
      echo "$s/none $s/torch-compile[mode=reduce-overhead] $s/torch-compile[mode=max-autotune]" ;;
    alone-1024)
      local s=t2i/1024 technique
      echo "$s/none $s/tuned[scheduler=no-sync,alone=scheduler]"
      for technique in scheduler hold_vae channels_last cudnn_benchmark fuse_qkv attention \
        cuda_graphs compile; do
        echo "$s/tuned[alone=$technique]"
      done
      echo "$s/tuned[compile=whole,alone=compile]" ;;
    steps-30 | batch-4 | bf16)
      for side in 1024 512; do
        echo "$1/$side/none $1/$side/torch-compile$warm $1/$side/tuned$warm"
      done ;;
  esac
}

overrides=()
if [ "$small" = yes ]; then
  # The same configuration with narrowed architectures and short calls: sizes keep their names'
  # order, not their pixels.
  config=$out/gpu-sdxl-small.yaml
  sed -e 's/synthetic:\([a-z0-9-]*\)/synthetic:\1-small/' \
    -e 's/^  size: .*/  size: [128, 64]/' -e 's/size: 1024,/size: 128,/' -e 's/size: 512,/size: 64,/' \
    -e 's/size: 1024$/size: 128/' -e 's/steps: 30}/steps: 6}/' \
    -e 's/\[5, 10, 15, 20, 30\]/[2, 4, 6, 8, 12]/' \
    configs/gpu-sdxl.yaml > "$config.partial" && mv "$config.partial" "$config" || exit 1
  overrides=(--set "device=$device" --set defaults.dtype=float32 --set defaults.steps=4
             --set protocol.rounds=2 --set protocol.warmup.max_calls=3
             --set protocol.calls.min_calls=3 --set protocol.calls.max_calls=3)
  slices=(core-64 alone-128 edits-64 lossy-128 embedded)
fi
small_cells_of() {
  local s=t2i/64
  case $1 in
    core-64) echo "$s/none $s/tuned$warm" ;;
    alone-128)
      s=t2i/128
      echo "$s/none $s/tuned[scheduler=no-sync,alone=scheduler] $s/tuned[alone=channels_last]" \
        "$s/tuned[alone=fuse_qkv]" ;;
    edits-64) echo "edit-sd15/64/none edit-sdxl/64/none i2i/64/none" ;;
    lossy-128) echo "t2i/128/none t2i/128/tuned-fp8" ;;
  esac
}

deadline=$("$python" -c "import sys, time; print(int(time.time() + 60 * float(sys.argv[1])))" \
  "$minutes") || exit 2
left() { echo $((deadline - $(date +%s))); }

run_slice() {
  local name=$1 folder=$out/$1 arguments=() cell resume=() code budget
  if [ "$name" = embedded ]; then
    arguments=(configs/quickstart.yaml --only backend=none --set protocol.rounds=2
               --set "device=$device")
  else
    arguments=("$config" "${overrides[@]}")
    for cell in $(if [ "$small" = yes ]; then small_cells_of "$name"; else cells_of "$name"; fi); do
      arguments+=(--only "name=$cell")
    done
  fi
  [ -e "$folder/plan.json" ] && resume=(--resume)
  budget=$(left)
  if [ "$budget" -lt 20 ]; then return 75; fi
  timeout --foreground --signal=INT --kill-after=20 "$budget" \
    "$python" -m bench.cli run "${arguments[@]}" --out "$folder" "${resume[@]}"
  code=$?
  # timeout says 124 or 137 when it ended the run, bench 130 when it was interrupted, and 1 when
  # some cell is not ok. Where none is, the machine is at fault: the slice is for another call.
  if [ "$code" = 1 ] && ! grep -qs '"outcome": \?"ok"' "$folder/records.jsonl"; then return 1; fi
  case $code in
    124 | 130 | 137) return 75 ;;
    0 | 1) date -u +%Y-%m-%dT%H:%M:%SZ > "$folder/.done"; return 0 ;;
    *) return 1 ;;
  esac
}

if [ "$status" = no ]; then "$python" scripts/ready.py "$device" || exit 2; fi

done_slices=()
failed=()
for name in "${slices[@]}"; do
  if [ -n "$only" ] && [ "$only" != "$name" ]; then continue; fi
  chosen=yes
  if [ -e "$out/$name/.done" ]; then
    done_slices+=("$name")
    [ "$status" = yes ] && echo "done     $name"
    continue
  fi
  if [ "$status" = yes ]; then
    if [ -e "$out/$name/plan.json" ]; then echo "begun    $name"; else echo "to do    $name"; fi
    continue
  fi
  echo "== $name, $(left) s left"
  run_slice "$name"
  case $? in
    0) done_slices+=("$name") ;;
    75) echo "gpu_proof: stopped in $name by time; call again to go on"; exit 75 ;;
    *) failed+=("$name"); echo "gpu_proof: $name failed" >&2 ;;
  esac
done
if [ -n "$only" ] && [ -z "${chosen:-}" ]; then
  echo "gpu_proof: there is no slice $only; there are: ${slices[*]}" >&2
  exit 2
fi
[ "$status" = yes ] && exit 0
if [ ${#done_slices[@]} -eq 0 ]; then echo "gpu_proof: nothing was measured" >&2; exit 1; fi

folders=()
for name in "${done_slices[@]}"; do folders+=("$out/$name"); done
if [ "$(left)" -lt 60 ]; then
  echo "gpu_proof: slices are done, the self-check and the report are left; call again"
  exit 75
fi
echo "== report"
"$python" -m bench.cli report "${folders[@]}" --out "$out/report" \
  --reference onediff_t2i_i2i || failed+=(report)
echo "== self-check"
pairs=$([ "$small" = yes ] && echo 8 || echo 30)
"$python" scripts/selfcheck.py "${folders[@]}" --pairs "$pairs" --loop "$out/loop.json" \
  | tee "$out/self-check.txt" || failed+=(self-check)
if [ ${#failed[@]} -gt 0 ]; then
  echo "gpu_proof: failed: ${failed[*]}" >&2
  exit 1
fi
echo "gpu_proof: $([ -n "$only" ] && echo "the slice is" || echo "all slices are") done: ${done_slices[*]}"
