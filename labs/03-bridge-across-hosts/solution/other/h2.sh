# task 1
# The bridge by ip commands in the file, and the host stays up: all in one go.
cat >/etc/network/interfaces <<FILE
auto lo
iface lo inet loopback

auto {bridge}
iface {bridge} inet static
    pre-up ip link add {bridge} type bridge
    pre-up ip link set eth0 up
    pre-up ip link set eth0 master {bridge}
    address {h2}/{bits}
    gateway {gateway}
    post-down ip link del {bridge}
FILE
ip address flush dev eth0
ifup {bridge}
# task 2
# Docker is told by its own file.
cat >/etc/docker/daemon.json <<FILE
{"bridge": "{bridge}", "fixed-cidr": "{range2}"}
FILE
systemctl restart docker
docker run -d --restart always --name c1 ubuntu sleep infinity
