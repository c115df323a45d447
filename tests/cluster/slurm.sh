#!/bin/sh
# Starts or stops a SLURM of one node on this machine, for tests alone: as root, with Debian's slurm-wlm and munge.
#   slurm.sh start FOLDER    prints the line that sets SLURM_CONF
#   slurm.sh stop FOLDER
set -eu

folder=$2
pid() { cat "$folder/$1.pid" 2>/dev/null || true; }

stop() {
    for daemon in slurmctld slurmd munged; do
        number=$(pid $daemon)
        if [ -n "$number" ]; then kill "$number" 2>/dev/null || true; fi
    done
}

start() {
    mkdir -p "$folder/state" "$folder/spool" "$folder/munge"
    chmod 700 "$folder/munge"
    dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 2>/dev/null
    chmod 400 "$folder/munge/key"
    munged --force --key-file="$folder/munge/key" --pid-file="$folder/munged.pid" \
        --socket="$folder/munge/socket" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    node=$(hostname -s)
    cat > "$folder/slurm.conf" <<CONF
ClusterName=tests
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
NodeName=$node NodeAddr=127.0.0.1 CPUs=8 RealMemory=4000 State=UNKNOWN
PartitionName=tests Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF="$folder/slurm.conf"
    slurmctld -c
    slurmd
    for _ in $(seq 60); do
        if sinfo -h -o %T 2>/dev/null | grep -q idle; then
            echo "SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 0.5
    done
    cat "$folder/slurmctld.log" "$folder/slurmd.log" >&2
    exit 1
}

"$1"
