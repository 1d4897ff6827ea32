# task 1
ovs-vsctl add-br {switch}
ovs-vsctl add-port {switch} to-peer
ovs-vsctl set interface to-peer type=gre options:remote_ip={h1}
ip address add {trial2}/{bits} dev {switch}
ip link set {switch} up
# task 2
ip link add {bridge} type bridge
ip address add {door2}/{bits} dev {bridge}
ip link set {switch} master {bridge}
ip address flush dev {switch}
ip address add {trial2}/{bits} dev {bridge}
ip link set {bridge} up
# task 3
mkdir -p /etc/docker
echo '{"bridge": "{bridge}", "mtu": {mtu}}' >/etc/docker/daemon.json
systemctl restart docker
docker run -d --name c1 alpine sleep infinity
docker run -d --name c2 alpine sleep infinity
# task 4
ip route add {door1}/32 dev {bridge}
ip route add {range1} via {door1} src {door2}
# task 5
