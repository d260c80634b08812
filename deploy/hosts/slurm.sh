#!/usr/bin/env bash
#SBATCH --job-name=hero
#SBATCH --nodes=4
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@900
#SBATCH --requeue
#SBATCH --open-mode=append
# A run in one allocation of Slurm: broker on the first node, learner on the first LEARNER_NODES, an actor for each GPU of
# the others, SCORERS scorers wherever there are cores.
#   sbatch [--nodes=N --gpus-per-node=G ...] --export=ALL,LEARNER_NODES=1,SCORERS=4 deploy/hosts/slurm.sh my.toml
# my.toml sets run.folder, on a file system that all nodes share, and learner.ranks = LEARNER_NODES * G. 900 s before the
# time is over (or when the job is cancelled or preempted) the learner checkpoints; submitted or queued again the run goes on.
set -euo pipefail
config=${1:?usage: sbatch deploy/hosts/slurm.sh my.toml} learner_nodes=${LEARNER_NODES:-1} scorers=${SCORERS:-4}
gpus=${SLURM_GPUS_ON_NODE:?this is for sbatch, with GPUs} cpus=$SLURM_CPUS_ON_NODE
here=${PROJECT:-$SLURM_SUBMIT_DIR}
cd "$here"
# shellcheck source=deploy/hosts/shared.sh
. deploy/hosts/shared.sh
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
if [ "${#nodes[@]}" -le "$learner_nodes" ]; then
  echo "${#nodes[@]} nodes: the learner takes $learner_nodes of them, and actors need one or more" >&2; exit 2
fi
joined() { local IFS=,; echo "$*"; }

# step NAME OPTION... -- COMMAND...: a step of the job, beside the others.
step() {
  local name=$1; shift
  local options=()
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  srun --overlap --job-name="$name" --output="$beside/$name-%N-%t.log" --open-mode=append "${options[@]}" "$@" &
}
step broker --nodes=1 --ntasks=1 --cpus-per-task=1 --gpus=0 --nodelist="$head" -- \
  env BROKER_HOST="$head" bash deploy/hosts/broker.sh "$beside/broker" "${PORT:-6379}"
broker=$!
await_broker "$broker"

step learner --nodes="$learner_nodes" --ntasks="$learner_nodes" --cpus-per-task="$cpus" --gpus-per-node="$gpus" \
  --nodelist="$(joined "${nodes[@]:0:learner_nodes}")" --kill-on-bad-exit=1 -- \
  .venv/bin/torchrun --nnodes "$learner_nodes" --nproc-per-node "$gpus" --rdzv-backend c10d \
  --rdzv-endpoint "$head:${RENDEZVOUS_PORT:-29400}" --rdzv-id "$SLURM_JOB_ID" --shutdown-timeout 600 --no-python \
  .venv/bin/hero learner "$config" --run.id "$id"
learner=$!
# ask STEP...: SIGTERM to its processes; srun itself would kill them at once.
ask() {
  squeue --noheader --steps --job="$SLURM_JOB_ID" --format='%i %j' | while read -r id name; do
    case " $* " in *" $name "*) scancel --signal=TERM "$id" || true ;; esac
  done
}
trap 'ask learner' TERM  # it drains and checkpoints
others=("${nodes[@]:learner_nodes}")
step actor --nodes="${#others[@]}" --ntasks="$((${#others[@]} * gpus))" --cpus-per-task="$((cpus / gpus))" \
  --gpus-per-task=1 --nodelist="$(joined "${others[@]}")" --no-kill --kill-on-bad-exit=0 --wait=0 -- .venv/bin/hero actor "$config" --run.id "$id"
step scorer --ntasks="$scorers" --cpus-per-task=1 --gpus=0 --no-kill --kill-on-bad-exit=0 --wait=0 -- \
  .venv/bin/hero scorer "$config" --run.id "$id"

while kill -0 "$learner" 2>/dev/null; do wait "$learner" || true; done  # a signal ends a wait, too
code=0
wait "$learner" || code=$?  # of the learner, which may have ended while the trap ran: the shell keeps it
ask actor scorer  # who is still there: the run is not over
for _ in $(seq 60); do
  squeue --noheader --steps --job="$SLURM_JOB_ID" --format=%j | grep -qE '^(actor|scorer)$' || break
  sleep 1
done
ask broker
wait "$broker" || true
exit "$code"
