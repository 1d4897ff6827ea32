#
#   bash FILE              builds the network, checks what is claimed of it, and ends: so does it
#   bash FILE COMMAND…     does COMMAND in it before that, "bash" for a prompt; then there are
#                              on h1 ip addr     on h1:c1 ping ADDRESS     on wire tcpdump -i s1-eth1
#
# It needs bash, iproute2, ping, and whatever it calls by name; tcpdump for the proofs of path.
# Exit status: 0 all claims hold, 1 one does not, or COMMAND's own.
#
# The machine is not touched: all of it is in namespaces of this shell's own, which end with it.
set -euo pipefail

here=$(readlink /proc/self/ns/net)
if [ "$$" != 1 ] || [ "${XLAB_OUTSIDE:-$here}" = "$here" ]; then
    if [ ! -f "$0" ] || [ "$0" -ef /bin/bash ]; then
        echo "write it to a file first: it starts itself again in namespaces of its own" >&2
        exit 2
    fi
    export XLAB_OUTSIDE=$here
    user=()
    [ "$(id -u)" = 0 ] || user=(--user --map-root-user)
    exec unshare "${user[@]}" --net --mount --uts --ipc --pid --fork --kill-child bash "$0" "$@"
fi
trap 'exit 130' INT
trap 'exit 143' TERM
# Private ones: ip keeps names in /run/netns, and some machines allow no sysctl in their own /proc.
mount -t tmpfs tmpfs /run
mount -t proc proc /proc 2>/dev/null || true

# on NODE PROGRAM…: run it in that node, with a /run and, where the kernel allows one, a /sys of its own
on() {
    # shellcheck disable=SC2016
    nsenter --net="/run/netns/$1" -- unshare --mount sh -c '
        mount --bind "/run/node/$0" /run || exit 125
        mount -t sysfs sysfs /sys 2>/dev/null
        exec "$@"' "$@"
}
export -f on

# node NAME: a network namespace, set up as one of a machine just switched on
node() {
    ip netns add "$1"
    mkdir -p "/run/node/$1"
    ip -n "$1" link set lo up
    on "$1" sysctl -eqw @SETTINGS@
}

# until_there NODE FILE: wait until a daemon there has made it, in /run
until_there() {
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        if [ -e "/run/node/$1/${2#/run/}" ]; then
            return
        fi
        sleep 0.05
    done
    echo "waited 30 s in vain for $2 of $1" >&2
    exit 1
}

broken=0
stage() { echo "-- $1"; }
holds() { echo "✓ $1"; }
fails() {
    echo "✗ $1"
    broken=$((broken + 1))
}

# answers NODE ADDRESS: within 5 s
answers() {
    local end=$((SECONDS + 5))
    until on "$1" ping -n -c1 -w1 "$2" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then
            return 1
        fi
        sleep 0.05
    done
}

# reaches NODE ADDRESS TEXT
reaches() {
    if answers "$1" "$2"; then holds "$3"; else fails "$3"; fi
}

# does_not_reach NODE ADDRESS TEXT: no answer to three pings; 1 is how ping says so
does_not_reach() {
    local status=0
    on "$1" ping -n -c3 -i0.1 -W0.4 "$2" >/dev/null 2>&1 || status=$?
    if [ "$status" = 1 ]; then holds "$3"; else fails "$3"; fi
}

# all_reach_each_other TEXT NODE=ADDRESS…
all_reach_each_other() {
    local text=$1 silent="" a b
    shift
    for a; do
        for b; do
            if [ "$a" != "$b" ] && ! answers "${a%%=*}" "${b#*=}"; then
                silent+=" ${a%%=*}>${b%%=*}"
            fi
        done
    done
    if [ -z "$silent" ]; then holds "$text"; else fails "$text: not$silent"; fi
}

# distinct TEXT NODE=ADDRESS…: each has that address, and no two have the same
distinct() {
    local text=$1 wrong pair
    shift
    wrong=$(printf '%s\n' "${@#*=}" | sort | uniq -d | tr '\n' ' ')
    for pair; do
        if [ -z "$(ip -n "${pair%%=*}" -o -4 addr show to "${pair#*=}/32")" ]; then
            wrong+=" $pair"
        fi
    done
    if [ -z "$wrong" ]; then holds "$text"; else fails "$text: $wrong"; fi
}

# shows TEXT PATTERN NODE PROGRAM…: all that it prints matches the Perl regular expression
shows() {
    local text=$1 pattern=$2 output
    shift 2
    output=$(LC_ALL=C on "$@" 2>&1 || true)
    # shellcheck disable=SC2016
    if perl -0777 -e 'exit(<STDIN> !~ $ARGV[0])' -- "$pattern" <<<"$output"; then
        holds "$text"
    else
        fails "$text: $output"
    fi
}

# takes FILTER LINK NODE ADDRESS TEXT: five pings, and their five answers, cross LINK in this form
takes() {
    local listener tries seen=0
    if ! command -v tcpdump >/dev/null; then
        echo "- tcpdump is not installed: nobody looked whether $5"
        return
    fi
    answers "$3" "$4" || true
    rm -f /run/seen /run/tcpdump.log
    # -s and greater: nothing else on the link is that long
    nsenter --net=/run/netns/wire -- tcpdump -Z root -l -n -t --immediate-mode -i "$2" \
        "greater 400 and $1" >/run/seen 2>/run/tcpdump.log &
    listener=$!
    until grep -qs "listening on" /run/tcpdump.log; do
        if ! kill -0 "$listener" 2>/dev/null; then
            cat /run/tcpdump.log >&2
            fails "$5"
            return
        fi
        sleep 0.02
    done
    on "$3" ping -n -c5 -i0.1 -W1 -s400 "$4" >/dev/null 2>&1 || true
    for ((tries = 0; tries < 60 && seen < 10; tries++)); do
        seen=$(wc -l </run/seen)
        sleep 0.05
    done
    kill "$listener"
    wait "$listener" || true
    if [ "$seen" = 10 ]; then holds "$5"; else fails "$5: $seen of 10 packets"; fi
}

# finish COMMAND…
finish() {
    if ((broken)); then stage "claims that do not hold: $broken"; else stage "all claims hold"; fi
    if (($#)); then
        "$@"
        exit
    fi
    exit $((broken > 0))
}
