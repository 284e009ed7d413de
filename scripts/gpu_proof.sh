#!/usr/bin/env bash
# Measure everything that needs a GPU, in resumable slices.
#
#   scripts/gpu_proof.sh                              all slices that fit into --minutes
#   scripts/gpu_proof.sh --status                     how far each slice is
#   scripts/gpu_proof.sh --slice core-1024            one of them
#   scripts/gpu_proof.sh --retry                      repeat what ended failed, timeout or oom
#   scripts/gpu_proof.sh --device cpu --small         the same on a CPU, architectures narrowed
#
# Needs a Python with torch, diffusers and this project's other requirements (PYTHON=..., default
# python3), and no network; docs/gpu-proof.md says how to bring them and what to bring back. Call
# it again until all slices are done: each call resumes where the last one stopped, whether by time,
# Ctrl-C or kill. --minutes (default 8.5) limits one call; the cell in progress at its end is measured
# again, so use a higher limit where possible. Records, a report, the self-check's output and results/
# (what to bring back) go to --out, default runs/gpu-proof.
#
# Exit: 0 all slices are done and the self-check holds, 1 a known answer is broken or a slice
# failed, 2 wrong usage or the machine is not ready: nothing was started, 75 stopped by time: call
# again, 130 interrupted: call again.

set -u -o pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
device=cuda
small=no
minutes=8.5
out=
slice=
status=no
retry=no

complain() { echo "gpu_proof: $*" >&2; }
end() { local code=$1; shift; complain "$@"; exit "$code"; }

while [ $# -gt 0 ]; do
  case $1 in
    --device | --minutes | --out | --slice)
      if [ $# -lt 2 ]; then end 2 "$1 needs a value"; fi
      printf -v "${1#--}" %s "$2"
      shift ;;
    --small | --status | --retry) printf -v "${1#--}" yes ;;
    -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) end 2 "unknown option $1; see --help" ;;
  esac
  shift
done
if [[ $device != cuda* ]] && [ "$small" = no ]; then
  end 2 "at full size a CPU takes days; add --small"
fi
[[ $minutes =~ ^[0-9]+(\.[0-9]+)?$ ]] || end 2 "--minutes $minutes is no number"
command -v "$python" > /dev/null || end 2 "there is no $python; name a Python with torch in PYTHON"
begun=$(date +%s)
deadline=$(awk -v now="$begun" -v minutes="$minutes" 'BEGIN { printf "%d", now + 60 * minutes }')
left() { echo $((deadline - $(date +%s))); }
slice_needs=20   # seconds; less is not worth a start
report_needs=120
if [ "$(left)" -lt "$slice_needs" ]; then
  end 2 "--minutes $minutes is too short to measure anything; 8.5 is usual"
fi
out=${out:-runs/gpu-proof$([ "$small" = yes ] && echo -small)}
config=configs/gpu-sdxl.yaml
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
state="scripts/proof_state.py"

# A slice is a name and the cells that it measures; the most important come first. Each has its own
# baseline, so that its ratios come from one interleaved session.
slices=(core-1024 core-512 lossy-1024 cold-1024 shipped-1024 edits-512 i2i-1024 alone-1024
        steps-30 batch-4 bf16 modes-512 modes-1024 edits-1024 lossy-512 cold-512 i2i-512)
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

overrides=(--set "device=$device")
if [ "$small" = yes ]; then
  overrides+=(--set defaults.dtype=float32 --set defaults.steps=4
              --set protocol.rounds=2 --set protocol.warmup.max_calls=3
              --set protocol.calls.min_calls=3 --set protocol.calls.max_calls=3)
  slices=(core-64 shipped-64 alone-128 edits-64 lossy-128 embedded)
fi
narrowed() {
  # The same configuration with narrowed architectures and short calls: sizes keep their names'
  # order, not their pixels.
  sed -e 's/synthetic:\([a-z0-9-]*\)/synthetic:\1-small/' \
    -e 's/^  size: .*/  size: [128, 64]/' -e 's/size: 1024,/size: 128,/' -e 's/size: 512,/size: 64,/' \
    -e 's/size: 1024$/size: 128/' -e 's/steps: 30}/steps: 6}/' \
    -e 's/\[5, 10, 15, 20, 30\]/[2, 4, 6, 8, 12]/' "$config"
}
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

if [ -n "$slice" ] && [[ " ${slices[*]} " != *" $slice "* ]]; then
  end 2 "there is no slice $slice; there are: ${slices[*]}"
fi
wanted=("${slices[@]}")
if [ -n "$slice" ]; then wanted=("$slice"); fi

# How far each slice is, and how many of its measurements have a record.
declare -A states counts
look() {
  local lines state_of name count
  lines=$("$python" "$state" slices "$out" "$@")
  case $? in 0) ;; 2) return 2 ;; *) lines= ;; esac
  if [ -z "$lines" ]; then complain "$python is no Python that works"; return 2; fi
  while IFS=$'\t' read -r state_of name count; do
    states[$name]=$state_of counts[$name]=$count
  done <<< "$lines"
}

if [ "$status" = yes ]; then
  look "${wanted[@]}" || exit 2
  for name in "${wanted[@]}"; do
    printf '%-8s %-10s %s\n' "${states[$name]}" "$name" "${counts[$name]}" | sed 's/ *$//'
  done
  exit 0
fi

# From here on one call at a time works in the folder, until its last child is gone.
if ! why=$( { mkdir -p "$out" && : >> "$out/.lock"; } 2>&1 ); then
  end 2 "nothing can be written in $out (${why##*: }); choose another folder with --out"
fi
exec 9>> "$out/.lock"
flock -n 9 ||
  end 2 "another call is at work in $out; wait for it, or choose another folder with --out"
look "${slices[@]}" || exit 2
"$python" "$state" ready "$device" "$out" $([ "$small" = yes ] && echo --small) || exit 2
if [ "$small" = yes ]; then
  narrowed > "$out/gpu-sdxl-small.yaml" || exit 2
  config=$out/gpu-sdxl-small.yaml
fi

# In the foreground, so that Ctrl-C reaches the command; it ends with this script, however that ends.
within() { "$python" "$state" within "$@"; }
interrupted() {
  end 130 "interrupted${1:+ in $1}; what was measured is kept; call again to continue"
}
trap interrupted INT

# What core compiled, in a cell that starts with nothing else, as on a machine that it was sent to.
shipped_arguments() {
  local side=$1 file=$out/shipped-$1.bin
  if [ ! -e "$file" ]; then
    cp "$out/core-$side"/cache/*/artifacts.bin "$file.part" 2> /dev/null || {
      complain "core-$side has compiled nothing yet that could be shipped"
      return 1
    }
    mv "$file.part" "$file"
  fi
  local backend="{name: tuned, cache: fresh, options: {cache_file: '$file'}}"
  arguments=("$config" "${overrides[@]}"
             --set "matrix.include=[{workload: t2i, size: $side, backend: $backend}]"
             --only workload=t2i --only "size=$side" --only backend=none
             --only "backend=tuned[cache_file=${file##*/}]")
}

run_slice() {
  local name=$1 folder=$out/$1 arguments=() cell more=()
  if [ "$name" = embedded ]; then
    arguments=(configs/quickstart.yaml --only backend=none --set protocol.rounds=2
               --set "device=$device")
  elif [[ $name = shipped-* ]]; then
    shipped_arguments "${name#shipped-}" || return
  else
    arguments=("$config" "${overrides[@]}")
    for cell in $(if [ "$small" = yes ]; then small_cells_of "$name"; else cells_of "$name"; fi); do
      arguments+=(--only "name=$cell")
    done
  fi
  [ -e "$folder/plan.json" ] && more=(--resume)
  case ${states[$name]} in
    failed) more=(--retry failed,timeout,oom,invalid,fallback,unavailable,unsupported,skipped) ;;
    done) more=(--retry failed,timeout,oom) ;;
  esac
  within "$(left)" "$python" -m bench.cli run "${arguments[@]}" --out "$folder" "${more[@]}"
}

# What to bring back: plan, records and a few images of each finished slice.
pack() {
  local name=$1 machine kept
  for kept in "$out"/results/*/"$name"/records.jsonl; do
    if [ "$kept" -nt "$out/$name/records.jsonl" ]; then return; fi
  done
  machine=$("$python" "$state" name "$out/$name") || return
  within 0 "$python" -m reports.publish pack "$out/$name" "$machine" --into "$out/results" \
    > /dev/null
}

failed=()
measured=no
for name in "${wanted[@]}"; do
  before=${counts[$name]}
  if [ "${states[$name]}" = done ]; then
    if [ "$retry" = no ] || ! [[ $before =~ failed|timeout|oom ]]; then continue; fi
  fi
  if [ "$(left)" -lt "$slice_needs" ]; then
    echo "gpu_proof: stopped before $name by time; call again to continue"
    exit 75
  fi
  echo "== $name, $(left) s left"
  had_all_the_time=$([ "$measured" = no ] && echo yes || echo no)
  measured=yes
  run_slice "$name"
  code=$?
  look "$name"
  now=${counts[$name]}
  case $code in
    124 | 137)
      if [ "$(left)" -gt 0 ]; then
        failed+=("$name")
        complain "$name was killed ($now); if memory ran out, the kernel's log says so"
        continue
      fi
      if [ "$before" = "$now" ] && [ "$had_all_the_time" = yes ]; then
        end 1 "$name got no further in $minutes minutes; give it more with --minutes"
      fi
      echo "gpu_proof: stopped in $name by time ($now); call again to continue"
      exit 75 ;;
    130) interrupted "$name ($now)" ;;
  esac
  case ${states[$name]} in
    done) pack "$name" || failed+=("pack $name") ;;
    failed)
      failed+=("$name")
      complain "in $name nothing is ok ($now); fix the cause and call again" ;;
    *)
      failed+=("$name")
      complain "$name cannot continue (see above); fix the cause and call again, or rename" \
        "$out/$name to measure it anew" ;;
  esac
done

done_slices=()
for name in "${slices[@]}"; do
  if [ "${states[$name]}" = done ]; then done_slices+=("$name"); fi
done
if [ ${#done_slices[@]} -eq 0 ]; then
  end 1 "nothing was measured; failed: ${failed[*]}"
fi
if [ "$measured" = yes ] && [ "$(left)" -lt "$report_needs" ]; then
  echo "gpu_proof: slices are measured, the report and the self-check are left; call again"
  exit 75
fi
folders=()
for name in "${done_slices[@]}"; do
  folders+=("$out/$name")
  # Those of earlier calls too: one may have ended between measuring and packing.
  [[ " ${failed[*]} " == *" pack $name "* ]] || pack "$name" || failed+=("pack $name")
done
echo "== report"
within 0 "$python" -m bench.cli report "${folders[@]}" --out "$out/report" \
  --reference onediff_t2i_i2i || failed+=(report)
echo "== self-check"
pairs=$([ "$small" = yes ] && echo 8 || echo 30)
# Into a file and not through a pipe: a pipe's subshell would outlive this script.
within 0 "$python" scripts/selfcheck.py "${folders[@]}" --pairs "$pairs" --loop "$out/loop.json" \
  > "$out/self-check.txt" 2> "$out/self-check.log"
code=$?
cat "$out/self-check.txt"
if [ "$code" -ne 0 ]; then
  failed+=(self-check)
  grep -q '^self-check:' "$out/self-check.txt" || tail -n 1 "$out/self-check.log" >&2
fi
if [ ${#failed[@]} -gt 0 ]; then
  end 1 "failed: ${failed[*]}; done: ${done_slices[*]}"
fi
echo "gpu_proof: $([ -n "$slice" ] && echo "the slice is" || echo "all slices are") done: ${wanted[*]}"
echo "gpu_proof: copy $out/results/* to reports/results, and run make report-results; see" \
  "docs/gpu-proof.md"
