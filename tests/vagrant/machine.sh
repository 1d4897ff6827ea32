# Pid 1 of tests/vagrant/run: makes the box and a network, and starts libvirt there.
#   machine.sh WORK CHECKOUT COMMAND
set -eu
work=$1 checkout=$2 command=$3
here=$checkout/tests/vagrant
box=${XLAB_BOX:-$work/debian.box}

say() { echo "vagrant: $*" >&2; }

[ -e "$box" ] || { say 'making a box (two minutes)' && sh "$here/box.sh" "$work" "$box"; } || {
    echo "vagrant: can't: no box could be made (see above)" >&2
    exit 3
}

# What libvirt writes to is private.
mount --make-rprivate /
for place in /run /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    mkdir -p "$place"
    mount -t tmpfs -o mode=755 none "$place"
done
mkdir -p "$work/libvirt" /run/lock
cp -a /etc/libvirt/. "$work/libvirt"
mount --bind "$work/libvirt" /etc/libvirt
# No network of libvirt's own starts: Vagrant makes the one it wants.
rm -f /etc/libvirt/qemu/networks/autostart/*
# The emulator is root's, like everything here: there is nobody else to keep it from.
cat >/etc/libvirt/qemu.conf <<'CONF'
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
CONF
printf 'unix_sock_rw_perms = "0700"\nauth_unix_rw = "none"\n' >/etc/libvirt/libvirtd.conf

# A network namespace for all that follows.  pasta joins it to the world through sockets of its own;
# no port of either side is let in to the other.
mkdir /run/xlab
: >/run/xlab/net
unshare --net=/run/xlab/net true
pasta --quiet --config-net --ipv4-only --no-map-gw -t none -u none -T none -U none \
    --netns-only --runas 0:0 --netns /run/xlab/net
exec nsenter --net=/run/xlab/net sh "$here/inside.sh" "$work" "$checkout" "$box" "$command"
