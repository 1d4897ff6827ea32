#!/bin/dash
# First program of the virtual clock's guest: its root is the archive it was booted from, in memory.
# Everything is where it will be when figures are taken, so that no sample waits for anything.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/root PYTHONHASHSEED=0 PYTHONPATH=/opt XLAB_VIRTUAL=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666,gid=5,mode=620 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
ln -s /proc/self/fd /dev/fd
mount -t tmpfs -o mode=755 run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
while read -r module; do
    insmod "/modules/$module" || echo "guest: no module $module"
done </modules/order
chmod 666 /dev/net/tun
echo guest >/proc/sys/kernel/hostname
ip link set lo up
python3.13 -P -m xlab.guest.inside
echo o >/proc/sysrq-trigger
sleep 60
