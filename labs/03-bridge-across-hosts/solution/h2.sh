# task 1
ifdown eth0
cat >/etc/network/interfaces <<FILE
auto lo
iface lo inet loopback

auto {bridge}
iface {bridge} inet static
    address {h2}
    netmask {mask}
    gateway {gateway}
    bridge_ports eth0
FILE
ifup {bridge}
# task 2
mkdir -p /etc/systemd/system/docker.service.d
cat >/etc/systemd/system/docker.service.d/override.conf <<FILE
[Service]
ExecStart=
ExecStart=/usr/bin/dockerd -H fd:// -b {bridge} --fixed-cidr {range2}
FILE
systemctl daemon-reload
systemctl restart docker
docker run -d --restart unless-stopped --name c1 busybox sleep infinity
