#!/usr/bin/env bash
# Train on a Cloud TPU: request a slice, then run the same command on all of its workers. Details and costs:
# docs/launch.md.
#
#   launch/tpu_vm.sh [--dry-run] create                  request the slice; it may wait in a queue
#                                state                   print its state: ACTIVE when it is ready
#                                install                 install this checkout's HEAD on every worker
#                                start  --config ... --workdir gs://BUCKET/RUN
#                                resume --config ... --workdir gs://BUCKET/RUN    same as start: runs resume by themselves
#                                follow                  show the log of worker 0 (WORKER=3 for another)
#                                stop                    send SIGTERM, which writes a checkpoint
#                                delete                  delete the slice and its disks; billing ends
set -euo pipefail

NAME=${NAME:-mpt-jax}                      # of the request and the slice
ZONE=${ZONE:-us-west4-a}                   # must have chips of this type
TYPE=${TYPE:-v5litepod-16}                 # --accelerator-type
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}    # --runtime-version; depends on the type
SPOT=${SPOT:-1}                            # 0: full price, never preempted
WORKER=${WORKER:-0}                        # whose log `follow` shows
GRACE=${GRACE:-120}                        # seconds that `stop` waits for the checkpoint

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2
    exit 2
}

# Quote words for a shell. (Not @Q: macOS has the bash of 2007.)
quoted() {
    printf '%q ' "$@"
}

# Run a command, or print it in a form that can be pasted into a shell.
run() {
    if [[ $DRY_RUN != 0 ]]; then
        quoted "$@"
        echo
    else
        "$@"
    fi
}

on_workers() { # WORKERS COMMAND
    run gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker="$1" --command="$2"
}

# Commands for the workers, which start in the home folder.
# shellcheck disable=SC2016  # expanded there
running='[ -s mpt_jax.pid ] && kill -0 "$(cat mpt_jax.pid)" 2>/dev/null'
refuse="if $running; then echo 'mpt_jax is already running here; stop it first' >&2; exit 1; fi"

[[ $GRACE =~ ^[0-9]+$ ]] || { echo "GRACE=$GRACE; expected seconds" >&2; exit 2; }
[[ $SPOT =~ ^[01]$ ]] || { echo "SPOT=$SPOT; expected 1, or 0 for the full price" >&2; exit 2; }

DRY_RUN=${DRY_RUN:-0}
if [[ ${1:-} == --dry-run ]]; then
    DRY_RUN=1
    shift
fi
[[ $# -ge 1 ]] || usage
command=$1
shift
case $command in
start | resume) [[ $# -ge 1 ]] || usage ;;
*) [[ $# -eq 0 ]] || usage ;;
esac

case $command in
create)
    flags=(--node-id="$NAME" --zone="$ZONE" --accelerator-type="$TYPE" --runtime-version="$RUNTIME")
    [[ $SPOT == 0 ]] || flags+=(--spot)
    # Permission to read and write buckets; the service account decides which.
    flags+=(--scopes=https://www.googleapis.com/auth/cloud-platform)
    run gcloud compute tpus queued-resources create "$NAME" "${flags[@]}"
    ;;
state)
    run gcloud compute tpus queued-resources describe "$NAME" --zone="$ZONE" --format='value(state.state)'
    ;;
install)
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    bundle=${TMPDIR:-/tmp}/mpt_jax.bundle
    if [[ $DRY_RUN == 0 ]]; then
        bundle=$(mktemp -d)/mpt_jax.bundle
        trap 'rm -rf "$(dirname "$bundle")"' EXIT
    fi
    # With its history, so that every result records its commit. Uncommitted changes are not included.
    run git -C "$root" bundle create --quiet "$bundle" HEAD
    run gcloud compute tpus tpu-vm scp "$bundle" "$NAME:mpt_jax.bundle" --zone="$ZONE" --worker=all
    # uv installs a Python: that of the TPU images may be too old for this package.
    on_workers all "$refuse; set -e; rm -rf mpt_jax; git clone --quiet mpt_jax.bundle mpt_jax; cd mpt_jax
python3 -m pip install --quiet --user uv
python3 -m uv venv --quiet --python 3.12 .venv
python3 -m uv pip install --quiet --python .venv -e '.[gcs]' 'jax[tpu]'"
    ;;
start | resume)
    [[ " $* " == *gs://* ]] ||
        echo "warning: no gs:// in the arguments: a --workdir on the workers' own disks is deleted with them" >&2
    on_workers all "$refuse; cd mpt_jax
nohup .venv/bin/python -m mpt_jax.train --distributed $(quoted "$@")>>../mpt_jax.log 2>&1 </dev/null &
echo \$! >../mpt_jax.pid"
    ;;
follow)
    on_workers "$WORKER" 'tail -n 200 -F mpt_jax.log'
    ;;
stop)
    on_workers all "if ! { $running; }; then echo 'nothing is running here'; exit 0; fi
kill -TERM \"\$(cat mpt_jax.pid)\"
for _ in \$(seq $GRACE); do $running || exit 0; sleep 1; done
echo 'still running after $GRACE s' >&2; exit 1"
    ;;
delete)
    run gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force
    ;;
*)
    usage
    ;;
esac
