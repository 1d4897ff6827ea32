#
#   bash FILE              builds the network, checks what is claimed of it, and ends: so does it
#   bash FILE COMMAND…     does COMMAND in it before that, "bash" for a prompt; then there are
#                              on h1 ip addr     on h1:c1 ping ADDRESS     on wire tcpdump -i s1-eth1
#
# It needs bash, iproute2, ping, perl, and whatever it calls by name; tcpdump where it listens.
# Exit status: 0 all claims hold, 1 one does not, or COMMAND's own.
#
# The machine is not touched: all of it is in namespaces of this shell's own, which end with it.
set -euo pipefail

# A user's PATH may lack the folders of ip, sysctl and ovs-vswitchd.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

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
# -n: first of all mount makes a /run/mount for itself, which would still be in the machine's.
mount -n -t tmpfs tmpfs /run
mount -t proc proc /proc 2>/dev/null || true

# Where root is the only user there is, tcpdump must not become another: this one comes first.
if [ "$(cat /proc/self/setgroups 2>/dev/null)" = deny ] && tcpdump=$(command -v tcpdump); then
    mkdir -p /run/xlab/bin
    printf '#!/bin/bash\nexec %q -Z root "$@"\n' "$tcpdump" >/run/xlab/bin/tcpdump
    chmod +x /run/xlab/bin/tcpdump
    PATH="/run/xlab/bin:$PATH"
fi

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
    mkdir -p "/run/node/$1/xlab"
    [ ! -e /run/xlab/bin ] || cp -r /run/xlab/bin "/run/node/$1/xlab"
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

# What conditions of links ask of a claim: how long an answer takes, in whole seconds, how long none
# must come before it counts as none, and whether one may be lost.
round_trip=@ROUND_TRIP@ silence=@SILENCE@ lossy=@LOSSY@

broken=0
stage() { echo "-- $1"; }
holds() { echo "✓ $1"; }
fails() {
    echo "✗ $1"
    broken=$((broken + 1))
}

# answers NODE ADDRESS: within 5 s
answers() {
    local end=$((SECONDS + 5 + 5 * round_trip))
    until on "$1" ping -n -c1 -w$((1 + round_trip)) "$2" >/dev/null 2>&1; do
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
    on "$1" ping -n -c3 -i0.1 -W"$silence" "$2" >/dev/null 2>&1 || status=$?
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
    local text=$1 wrong
    shift
    wrong=$(printf '%s\n' "${@#*=}" | sort | uniq -d | tr '\n' ' ')$(without "$@")
    if [ -z "$wrong" ]; then holds "$text"; else fails "$text: $wrong"; fi
}

# have TEXT NODE=ADDRESS…: each has that address
have() {
    local text=$1 wrong
    shift
    wrong=$(without "$@")
    if [ -z "$wrong" ]; then holds "$text"; else fails "$text: not$wrong"; fi
}

# without NODE=ADDRESS…: those that do not have that address
without() {
    local pair
    for pair; do
        if [ -z "$(ip -n "${pair%%=*}" -o -4 addr show to "${pair#*=}/32")" ]; then
            echo -n " $pair"
        fi
    done
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

# listen NODE LINK FILTER: write down in /run/seen what passes there, a line a packet
listen() {
    rm -f /run/seen /run/tcpdump.log
    nsenter --net="/run/netns/$1" -- tcpdump -Z root -l -n -t --immediate-mode -i "$2" "$3" \
        >/run/seen 2>/run/tcpdump.log &
    listener=$!
    until grep -qs "listening on" /run/tcpdump.log; do
        if ! kill -0 "$listener" 2>/dev/null; then
            cat /run/tcpdump.log >&2
            return 1
        fi
        sleep 0.02
    done
}

# heard PACKETS: listen no longer once there are that many, or after 3 s; how many there were
heard() {
    local tries
    seen=0
    for ((tries = 0; tries < 60 && seen < $1; tries++)); do
        seen=$(wc -l </run/seen)
        sleep 0.05
    done
    kill "$listener"
    wait "$listener" || true
}

# takes FILTER LINK NODE ADDRESS TEXT: five pings, and their five answers, cross LINK in this form
takes() {
    local answered least=10
    if ! command -v tcpdump >/dev/null; then
        echo "- tcpdump is not installed: nobody looked whether $5"
        return
    fi
    answers "$3" "$4" || true
    # -s and greater: nothing else on the link is that long
    if ! listen wire "$2" "greater 400 and $1"; then
        fails "$5"
        return
    fi
    answered=$(on "$3" ping -n -c5 -i0.1 -W$((1 + round_trip)) -s400 "$4" 2>&1 | grep -c time= || true)
    # What a lossy link lost never crossed it; what came late did, after ping had ended.
    if ((lossy && answered)); then least=$((5 + answered)); fi
    heard "$least"
    if ((least <= seen && seen <= 10)); then holds "$5"; else fails "$5: $seen of $least packets"; fi
}

# broadcasts_reach SOURCE ADDRESS NOBODY TARGET TEXT: it asks all who NOBODY is, and TARGET hears it
broadcasts_reach() {
    if ! command -v tcpdump >/dev/null; then
        echo "- tcpdump is not installed: nobody looked whether $5"
        return
    fi
    if ! listen "$4" eth0 "ether broadcast and arp src host $2 and arp dst host $3"; then
        fails "$5"
        return
    fi
    on "$1" ping -n -c1 -W0.3 "$3" >/dev/null 2>&1 || true
    heard 1
    if ((seen)); then holds "$5"; else fails "$5: nothing heard"; fi
}

# switch_learns TEXT SWITCH NODE=ADDRESS…: it knows their MACs; who is missing first sends something
switch_learns() {
    local text=$1 switch=$2 unknown="" pair
    shift 2
    for pair; do
        if ! knows "$switch" "${pair%%=*}"; then
            answers "${pair%%=*}" "${pair#*=}" || true
            knows "$switch" "${pair%%=*}" || unknown+=" ${pair%%=*}"
        fi
    done
    if [ -z "$unknown" ]; then holds "$text"; else fails "$text: not$unknown"; fi
}

# knows SWITCH NODE: the MAC of its eth0
knows() {
    local mac
    mac=$(ip -n "$2" -o link show eth0 | sed 's,.*link/ether \([^ ]*\).*,\1,')
    [[ $(bridge -n wire fdb show br "$1") == *"$mac"* ]]
}

# transfers SOURCE TARGET ADDRESS BYTES SECONDS TEXT: over TCP, in the largest segments that go
transfers() {
    local receiver
    rm -f /run/sent /run/received /run/port
    head -c "$4" /dev/urandom >/run/sent
    # shellcheck disable=SC2016
    nsenter --net="/run/netns/$2" -- perl -MIO::Socket::INET -e '
        alarm shift;
        my $listener = IO::Socket::INET->new(Listen => 1) or die "$!\n";
        syswrite STDERR, $listener->sockport . "\n";
        my $connection = $listener->accept or die "$!\n";
        print $bytes while sysread $connection, $bytes, 65536;' "$5" >/run/received 2>/run/port &
    receiver=$!
    until [ -s /run/port ] || ! kill -0 "$receiver" 2>/dev/null; do
        sleep 0.02
    done
    # shellcheck disable=SC2016
    if ! on "$1" timeout "$5" bash -c 'exec >"/dev/tcp/$0/$1" && cat' "$3" "$(cat /run/port)" \
        </run/sent 2>/dev/null; then
        kill "$receiver" 2>/dev/null || true
    fi
    wait "$receiver" 2>/dev/null || true
    if cmp -s /run/sent /run/received; then
        holds "$6"
    else
        fails "$6: $(stat -c %s /run/received) of $4 bytes"
    fi
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
