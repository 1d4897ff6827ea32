# Pid 1 of the bare machine (tests/clean_root/run): makes its root, and moves there.
#   build.sh ROOT CHECKOUT USER WHEEL COMMAND...        WHEEL is '' for a clone of CHECKOUT
set -eu
root=$1 checkout=$2
shift 2
# shellcheck disable=SC1091
. /etc/os-release
hostname bare

# This machine's own sources, but for those in its own folders.
minimal_root() {
    set --
    for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        if [ -s "$list" ] && ! grep -qE '^[^#]*\bfile:' "$list"; then set -- "$@" "$list"; fi
    done
    mmdebstrap --quiet --mode=root --variant=minbase ${XLAB_BARE_ONLINE:+--include=sudo} \
        "$VERSION_CODENAME" "$root" "$@"
    cp "$@" "$root/etc/apt/sources.list.d/"
    rm -f "$root"/etc/apt/sources.list.d/0000* "$root/etc/apt/sources.list"
}

echo "clean root: making a minimal $VERSION_CODENAME (half a minute)" >&2
# With all packages and the Python environment it comes to 1.5 GB.
mount -t tmpfs -o size=4G,mode=755 bare "$root"
minimal_root </dev/null || { echo "clean root: can't: mmdebstrap failed (see above)" >&2; exit 3; }
for kept in apt/apt.conf.d apt/auth.conf.d apt/keyrings apt/trusted.gpg.d pip.conf xdg/pip hosts; do
    if [ -e "/etc/$kept" ]; then
        case $kept in */*) mkdir -p "$root/etc/${kept%/*}" ;; esac
        cp -aT "/etc/$kept" "$root/etc/$kept"
    fi
done
cp -L /etc/resolv.conf "$root/etc/"
echo '127.0.0.1 localhost bare' >>"$root/etc/hosts"
# The authorities that this machine trusts, under a name that no package writes to.
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/trusted-here.crt" 2>/dev/null || :

echo 'tester:x:1000:1000:tester:/home/tester:/bin/sh' >>"$root/etc/passwd"
echo 'tester:x:1000:' >>"$root/etc/group"
if [ -n "$XLAB_BARE_ONLINE" ]; then
    echo 'tester:*:20000::::::' >>"$root/etc/shadow"
    echo 'tester ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/tester"
fi
home=$root/root
[ "$1" = root ] || home=$root/home/$1
mkdir -p "$home"
if [ -n "$2" ]; then
    cp "$2" "$home/"
    echo "clean root: $PRETTY_NAME, ${2##*/}" >&2
else
    git clone --quiet --depth 1 "file://$checkout" "$home/xlab"
    echo "clean root: $PRETTY_NAME, commit $(git -C "$home/xlab" rev-parse --short HEAD)" >&2
fi
chown -R 1000:1000 "$root/home"
cp "$checkout/tests/clean_root/inside.sh" "$root/inside.sh"

# The few devices of any machine, with the modes of a stock udev.
mount -t tmpfs -o mode=755 dev "$root/dev"
mkdir "$root/dev/net" "$root/dev/pts" "$root/dev/shm"
device() { mknod -m 666 "$root/dev/$1" c "$2" "$3"; }
device null 1 3
device zero 1 5
device full 1 7
device random 1 8
device urandom 1 9
device tty 5 0
device net/tun 10 200
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 run "$root/run"
mkdir -p "$root/run/lock"

# Of the network it has no more than its sockets on this machine: what is done to its interfaces, or
# to its rules, is done in there.
if [ -n "$XLAB_BARE_ONLINE" ]; then
    touch "$root/run/online"
    unshare --net="$root/run/online" -- ip link set lo up
    pasta --quiet --config-net --netns-only --runas 0 --netns "$root/run/online"
fi

# Not chroot: the kernel makes no user namespace for a process whose root is not its mount
# namespace's (EPERM, user_namespaces(7)).
cd "$root"
mkdir .machine
pivot_root . .machine
# A shell's background programs, of which this is one, ignore interrupts; tests send them.
exec /usr/bin/env -i --default-signal=INT,QUIT \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb \
    ${CI+"CI=$CI"} ${http_proxy+"http_proxy=$http_proxy"} ${https_proxy+"https_proxy=$https_proxy"} \
    ${PIP_INDEX_URL+"PIP_INDEX_URL=$PIP_INDEX_URL"} \
    ${PIP_DEFAULT_TIMEOUT+"PIP_DEFAULT_TIMEOUT=$PIP_DEFAULT_TIMEOUT"} \
    ${XLAB_BARE_ONLINE:+"XLAB_BARE_ONLINE=$XLAB_BARE_ONLINE"} \
    /bin/sh /inside.sh "$@"
