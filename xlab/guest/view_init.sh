#!/bin/sh
# First program of the guest (xlab/guest/view.py), in its initramfs: makes the root and moves there.
# virtio_pci, virtio_fs and virtio_console are built into the cloud kernel; overlay is a module.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
$b mkdir /lower /upper /new
$b insmod /overlay.ko || echo "init: no overlay module"
$b mount -t virtiofs -o ro root /lower || echo "init: no root"
$b mount -t tmpfs -o size=75%,mode=755 upper /upper
$b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /new ||
    echo "init: no overlay"

# The machine's own /proc, /sys, /dev and /run came along in the view of its root: covered anew.
cd /new || exit
$b mkdir -p proc sys dev run usr/lib/modules
$b mount -t proc proc proc
$b mount -t sysfs sys sys
$b mount -t cgroup2 cgroup sys/fs/cgroup
$b mount -t devtmpfs dev dev
$b mkdir -p dev/pts dev/shm
$b mount -t devpts -o ptmxmode=666,gid=5,mode=620 devpts dev/pts
$b mount -t tmpfs -o mode=1777 shm dev/shm
$b ln -sf /proc/self/fd dev/fd
$b ln -sf /proc/self/fd/0 dev/stdin
$b ln -sf /proc/self/fd/1 dev/stdout
$b ln -sf /proc/self/fd/2 dev/stderr
$b mount -t tmpfs -o mode=755 run run
$b mkdir run/lock run/netns run/guest
[ -L var/run ] || { $b mkdir -p var/run && $b mount --bind run var/run; }
# The kernel lies in a cache folder of the machine, which is part of the view.
$b mount --bind "/lower$($b cat /guest/kernel)/usr/lib/modules" usr/lib/modules
$b cp /guest/* run/guest/
$b hostname guest
$b ip link set lo up
exec $b switch_root /new /run/guest/busybox sh /run/guest/inside.sh
