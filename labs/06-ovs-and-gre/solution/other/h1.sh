# task 1
ovs-vsctl add-br {switch}
ovs-vsctl add-port {switch} to-peer
ovs-vsctl set interface to-peer type=gre options:remote_ip={h2}
ip address add {trial1}/{bits} dev {switch}
ip link set {switch} up
# task 2
ip link add {bridge} type bridge
ip address add {door1}/{bits} dev {bridge}
ip link set {switch} master {bridge}
ip address flush dev {switch}
ip address add {trial1}/{bits} dev {bridge}
ip link set {bridge} up
# task 3
mkdir -p /etc/docker
echo '{"bridge": "{bridge}", "mtu": {mtu}}' >/etc/docker/daemon.json
systemctl restart docker
docker run -d --name c1 alpine sleep infinity
docker run -d --name c2 alpine sleep infinity
# task 4
ip route add {door2}/32 dev {bridge}
ip route add {range2} via {door2} src {door1}
# task 5
