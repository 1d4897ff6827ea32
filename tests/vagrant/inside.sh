# In the private network namespace (tests/vagrant/machine.sh): libvirt, Vagrant, and the command.
#   inside.sh WORK CHECKOUT BOX COMMAND
set -eu
work=$1 checkout=$2 box=$3 command=$4

say() { echo "vagrant: $*" >&2; }

mount -t sysfs sys /sys
mount -t cgroup2 cgroup /sys/fs/cgroup
virtlogd --daemon
libvirtd --daemon
mkdir "$work/images" "$work/home" "$work/tmp"
virsh --quiet pool-define-as default dir --target "$work/images" >&2
virsh --quiet pool-start default >&2

git clone --quiet --depth 1 "file://$checkout" "$work/xlab"
say "commit $(git -C "$work/xlab" rev-parse --short HEAD)"
export HOME="$work/home" VAGRANT_HOME="$work/home/.vagrant.d" TMPDIR="$work/tmp"
export VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_DEFAULT_PROVIDER=libvirt VAGRANT_NO_COLOR=1
cd "$work/xlab"
vagrant --no-tty box add --name debian/trixie64 --provider libvirt "$box" >&2
began=$(date +%s)
vagrant --no-tty up >&2 || exit 1
say "up after $(($(date +%s) - began)) s"
status=0
vagrant ssh -c "$command" || status=$?
vagrant --no-tty destroy --force >&2
exit $status
