# Pid 1 of the bare machine, on its own root (tests/clean_root/build.sh): installs, then runs.
#   inside.sh USER WHEEL COMMAND...
# shellcheck disable=SC2086  # the prefixes of commands are lists of words, or nothing
set -eu
user=$1 wheel=${2##*/}
shift 2
umount -l /.machine
rmdir /.machine
[ ! -s /etc/trusted-here.crt ] || export PIP_CERT=/etc/trusted-here.crt

# In the machine's own network namespace these could change its network, or its kernel.
harmless='setpriv --bounding-set -net_admin,-sys_module'
# An ordinary user's program, started by root.
as_user='setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps -all --'
export HOME="/home/$user"
[ "$user" != root ] || { as_user='' && HOME=/root; }
if [ -n "${XLAB_BARE_ONLINE:-}" ]; then
    # What a user may do by sudo, programs that the user starts must not lack from the start.
    [ "$user" = root ] || as_user='setpriv --reuid 1000 --regid 1000 --clear-groups --'
    # shellcheck disable=SC2016
    nsenter --net=/run/online -- sh -c '
        mount -t sysfs sys /sys
        mount -t cgroup2 cgroup /sys/fs/cgroup
        exec "$@"' sh $as_user "$@"
    exit
fi

if command -v python3 || command -v git || command -v curl; then
    echo 'clean root: this is no bare machine' >&2
    exit 1
fi

of_a_checkout() {
    cd "$HOME/xlab"
    # The tests need more than xlab does.
    dev=
    case $1 in bin/test | .ci/run) dev=--dev ;; esac
    if [ "$user" != root ]; then
        # What a user without root is told to paste, root does here.
        status=0
        told=$($as_user bin/setup $dev 2>&1) || status=$?
        printf '%s\n' "$told" >&2
        [ "$status" = 3 ] && [ "$(printf '%s\n' "$told" | wc -l)" = 1 ] || exit 1
        $harmless sh -c "$(printf '%s' "${told#*run: }" | sed 's/^sudo //')"
    fi
    python=$($harmless $as_user bin/setup $dev)
    # The guest's kernel is fetched while there is a network to fetch it from.
    [ -z "$dev" ] || $harmless $as_user "$python" -P -m xlab.guest --check || :
}

# The first two of the three commands of the README; the third is COMMAND.
of_a_wheel() {
    cd "$HOME"
    # What whoever installed the machine has had done.
    $harmless apt-get -qq update
    $harmless env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y pipx >/dev/null
    # Its doctor finds no labs possible (3): a harmless root may not make networks.
    $harmless env HOME=/root pipx run --spec "./$wheel" xlab setup >&2 || [ $? = 3 ]
    # What COMMAND begins with, while there is a network.
    $as_user pipx run --spec "./$wheel" xlab --version >&2
}

if [ -n "$wheel" ]; then of_a_wheel "$@"; else of_a_checkout "$@"; fi
if pgrep -l 'ovs|netserver|iperf3' >&2; then
    echo 'clean root: a service was started' >&2
    exit 1
fi

# /sys shows the network namespace it was mounted in.  No `exec`: this shell stays, as pid 1, to reap
# what loses its parent.
# shellcheck disable=SC2016
unshare --net -- sh -c '
    ip link set lo up
    mount -t sysfs sys /sys
    mount -t cgroup2 cgroup /sys/fs/cgroup
    exec "$@"' sh $as_user "$@"
