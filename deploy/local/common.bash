# Functions that the scripts of this directory share; sourced, never run.
# Processes are known by a file in $RUN_DIR/pid that holds the pid and the time
# at which that process began, so that a pid which has since been given to
# somebody else's process is never mistaken for ours. Nothing is ever looked up
# by name.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
RUN_DIR=${RUN_DIR:-$ROOT/.run}
[[ $RUN_DIR == /* ]] || RUN_DIR=$PWD/$RUN_DIR

say() { printf '%s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Reads lines KEY=value from the file $1 into variables of the same name, unless
# the caller's environment has set them already.
load_env() {
    local line key
    [[ -f $1 ]] || return 0
    while read -r line; do
        key=${line%%=*}
        [[ ! $key =~ ^[A-Z_]+$ || -n ${!key:-} ]] || printf -v "$key" '%s' "${line#*=}"
    done <"$1"
}

# $1 random bytes in hexadecimal.
random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

# Where cargo puts what it builds.
target_dir() {
    (cd "$ROOT" && cargo metadata --format-version 1 --no-deps) | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# One command at a time in a run directory, by the lock file $1. The lock is file descriptor 9, which
# the processes started below must not inherit.
lock_run_dir() {
    mkdir -p "$RUN_DIR/pid" "$RUN_DIR/log" 2>/dev/null && [[ -w $RUN_DIR && -w $RUN_DIR/pid ]] ||
        die "cannot write to $RUN_DIR. If another user made it: stop and remove it as that user, or set RUN_DIR"
    exec 9>"$RUN_DIR/$1"
    flock -w 120 9 || die "another command has been working in $RUN_DIR for two minutes"
}

# --- processes ---------------------------------------------------------------

# The time at which process $1 began, in clock ticks; fails when it is no more.
began() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The name in parentheses may hold anything: what follows it begins with the state.
    read -ra stat <<<"${stat##*) }"
    [[ ${stat[0]} != [ZX] ]] && echo "${stat[19]}"
}

# The pid of our process $1, if it runs.
pid_of() {
    local pid ticks
    { read -r pid ticks <"$RUN_DIR/pid/$1"; } 2>/dev/null || return 1
    # Without ticks it had ended before they could be read.
    [[ -n $ticks && $(began "$pid") == "$ticks" ]] && echo "$pid"
}

running() { pid_of "$1" >/dev/null; }

# launch <name> <command…>: in the background, in a session of its own (Ctrl-C in
# a terminal must not reach it), with its output in $RUN_DIR/log/<name>.log.
launch() {
    local name=$1
    shift
    setsid "$@" </dev/null >>"$RUN_DIR/log/$name.log" 2>&1 7>&- 9>&- &
    echo "$! $(began $!)" >"$RUN_DIR/pid/$name"
}

# wait_ready <name> <seconds> <test…>: until the test holds. Fails, with the end
# of the log, when the process ends or the time is over.
wait_ready() {
    local name=$1 deadline=$((SECONDS + $2))
    shift 2
    until "$@"; do
        if ! running "$name"; then
            say "$name has ended; the end of $RUN_DIR/log/$name.log:"
        elif ((SECONDS >= deadline)); then
            say "$name is not ready in time; the end of $RUN_DIR/log/$name.log:"
        else
            sleep 0.1
            continue
        fi
        tail -n 30 "$RUN_DIR/log/$name.log" >&2
        return 1
    done
}

# signal_and_wait <name> <signal> <seconds>: fails when it is still there then.
signal_and_wait() {
    local pid deadline=$((SECONDS + $3))
    pid=$(pid_of "$1") || return 0
    kill -s "$2" "$pid" 2>/dev/null || true
    while running "$1"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# attend <command…>: runs a command until it ends or this script is told to end. In a
# session of its own, so that a Ctrl-C does not reach half of it before this script,
# whose trap ends all of it by end_attended. (What runs in the background would ignore
# Ctrl-C, and so would all that it starts: bash has it so.)
ATTENDED=''
attend() {
    local code=0
    env --default-signal=INT,QUIT setsid "$@" 8>&- &
    ATTENDED=$!
    wait "$ATTENDED" || code=$?
    ATTENDED=''
    return "$code"
}

# Ends what is attended, whatever it has started in its session. For tidying up it
# has $1 seconds.
end_attended() {
    local deadline=$((SECONDS + $1)) pids
    [[ -n $ATTENDED ]] || return 0
    mapfile -t pids < <(in_session "$ATTENDED")
    kill -TERM "${pids[@]}" 2>/dev/null || true
    while mapfile -t pids < <(in_session "$ATTENDED") && ((${#pids[@]} > 0)); do
        ((SECONDS < deadline)) || kill -KILL "${pids[@]}" 2>/dev/null || true
        sleep 0.1
    done
    wait "$ATTENDED" || true
    ATTENDED=''
}

# The pids of what runs in session $1, and of the process that may be about to begin it.
in_session() {
    local file pid stat
    for file in /proc/[0-9]*/stat; do
        stat=''
        { IFS= read -r -d '' stat <"$file"; } 2>/dev/null || [[ -n $stat ]] || continue
        pid=${file#/proc/} pid=${pid%/stat}
        read -ra stat <<<"${stat##*) }"
        [[ ${stat[0]} == [ZX] || ($pid != "$1" && ${stat[3]} != "$1") ]] || echo "$pid"
    done
}

# --- ports -------------------------------------------------------------------

# The inode of whoever listens on TCP port $1, on any address; fails when nobody does.
listener() {
    local line
    line=$(grep -hE "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$1") [0-9A-F]+:0000 0A " /proc/net/tcp /proc/net/tcp6 2>/dev/null | head -n 1)
    read -ra line <<<"$line"
    [[ -n ${line[9]:-} ]] && echo "${line[9]}"
}

# Who has port $1: one of ours, in the list $2, or who listens there, as far as this user may know.
port_holder() {
    local fd pid
    [[ " ${2:-} " != *" $1 "* ]] || { echo "another part of this stack"; return; }
    fd=$(find /proc/[0-9]*/fd -lname "socket:\[$(listener "$1")\]" -print -quit 2>/dev/null || true)
    pid=${fd#/proc/}
    pid=${pid%%/*}
    [[ -n $pid ]] && echo "$(cat "/proc/$pid/comm") (pid $pid)" || echo "another user's process"
}

# Where to look for a free port that is nobody's usual one.
random_port() { echo $((10000 + (RANDOM * 32768 + RANDOM) % 22000)); }

# The first port from $1 on where nobody listens and that is not in the list $2.
# Below 32768, where the kernel begins to hand out ports for outgoing connections.
free_port() {
    local port
    for ((port = $1; port < 32768; port++)); do
        [[ " $2 " == *" $port "* ]] || listener "$port" >/dev/null || { echo "$port"; return; }
    done
    die "no free port between $1 and 32767"
}

# Two stacks that start at once would choose the same ports: one at a time on this
# machine, until this script has ended. The lock, on what everybody may open, is file
# descriptor 7, which the processes that are launched do not inherit.
lock_ports() {
    exec 7</tmp
    flock -w 300 7 || die "another stack has been starting for five minutes"
}

# take_port <variable>: the port that the caller named there is ours, and may not be so already (TAKEN).
take_port() {
    [[ ${!1} =~ ^[1-9][0-9]{0,4}$ ]] || die "$1=${!1} is not a port"
    [[ " $TAKEN " != *" ${!1} "* ]] || die "$1=${!1} is taken by another part of this stack; choose another port for one of them"
    TAKEN+=" ${!1}"
}

# choose_port <variable> <port>: the first free one from that on, and none of ours (TAKEN).
choose_port() {
    local port
    port=$(free_port "$2" "$TAKEN")
    [[ $port == "$2" ]] || say "port $2 is taken by $(port_holder "$2" "$TAKEN"); using $port ($1)"
    printf -v "$1" '%s' "$port"
    TAKEN+=" $port"
}
