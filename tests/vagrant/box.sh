# Makes a box for vagrant-libvirt: a root file system without partitions, and its kernel.
#   box.sh WORK BOX
set -eu
work=$1 box=$2
# shellcheck disable=SC1091
. /etc/os-release

# This machine's own sources, but for those in its own folders.
set --
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    if [ -s "$list" ] && ! grep -qE '(^[^#]*\bfile:|^URIs: file:)' "$list"; then set -- "$@" "$list"; fi
done
root=$work/root
mmdebstrap --quiet --mode=root --variant=minbase \
    --include=systemd-sysv,systemd-resolved,dbus,udev,kmod,linux-image-cloud-amd64,openssh-server,sudo,rsync,iproute2,ca-certificates \
    "$VERSION_CODENAME" "$root" "$@"
cp "$@" "$root/etc/apt/sources.list.d/"
rm -f "$root"/etc/apt/sources.list.d/0000* "$root/etc/apt/sources.list"
# Its configuration of apt and pip, too, and the authorities that it trusts.
for kept in apt/apt.conf.d apt/auth.conf.d apt/keyrings apt/trusted.gpg.d pip.conf ssl/certs/ca-certificates.crt; do
    if [ -e "/etc/$kept" ]; then
        case $kept in */*) mkdir -p "$root/etc/${kept%/*}" ;; esac
        cp -LrT "/etc/$kept" "$root/etc/$kept"
    fi
done

# What the rules for boxes ask for: this user, its password-less sudo, Vagrant's well-known key.
chroot "$root" useradd --create-home --shell /bin/bash vagrant
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/vagrant"
mkdir -m 700 "$root/home/vagrant/.ssh"
cp "$(dpkg -L vagrant | grep '/keys/vagrant.pub$')" "$root/home/vagrant/.ssh/authorized_keys"
chroot "$root" chown -R vagrant:vagrant /home/vagrant
printf '[Match]\nType=ether\n[Network]\nDHCP=ipv4\n' >"$root/etc/systemd/network/any.network"
chroot "$root" systemctl --quiet enable systemd-networkd systemd-resolved ssh
ln -sf /run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
printf '/dev/vda / ext4 defaults 0 1\n' >"$root/etc/fstab"

mkdir "$work/box"
cp "$root"/boot/vmlinuz-* "$work/box/vmlinuz"
cp "$root"/boot/initrd.img-* "$work/box/initrd"
mke2fs -q -t ext4 -d "$root" "$work/disk" 8G
qemu-img convert -f raw -O qcow2 "$work/disk" "$work/box/box.img"
rm -rf "$root" "$work/disk"
echo '{"provider": "libvirt", "format": "qcow2", "virtual_size": 8}' >"$work/box/metadata.json"
# The Vagrantfile of a box comes before the project's own.
cat >"$work/box/Vagrantfile" <<'RUBY'
Vagrant.configure("2") do |config|
  config.vm.boot_timeout = 3600
  config.vm.provider :libvirt do |libvirt|
    libvirt.driver = "qemu"
    libvirt.cpu_mode = "maximum"
    libvirt.graphics_type = "none"
    libvirt.video_type = "none"
    libvirt.kernel = File.expand_path("vmlinuz", __dir__)
    libvirt.initrd = File.expand_path("initrd", __dir__)
    # Each level of page tables costs an emulated processor dear: four will do.
    libvirt.cmd_line = "root=/dev/vda rw console=ttyS0 quiet mitigations=off no5lvl"
  end
end
RUBY
tar -C "$work/box" -cf "$box.new" .
mv "$box.new" "$box"
rm -rf "$work/box"
