# task 1
ip link add {bridge} type bridge
ip link set {bridge} up
station() {
    ip netns add $1
    ip link add to-$1 type veth peer name eth0 netns $1
    ip link set to-$1 master $3
    ip link set to-$1 up
    ip -n $1 address add $2 dev eth0
    ip -n $1 link set eth0 up
}
station {one} {a1}/{bits} {bridge}
station {two} {a2}/{bits} {bridge}
station {three} {a3}/{bits} {bridge}
# task 3
ip address add {bridge_address}/{bits} dev {bridge}
# task 4
docker run -d --name c1 busybox sleep infinity
docker run -d --name c2 busybox sleep infinity
ip netns add {guest}
ip link add to-{guest} type veth peer name eth0 netns {guest}
ip link set to-{guest} master docker0
ip link set to-{guest} up
ip -n {guest} address add 172.17.200.1/16 dev eth0
ip -n {guest} link set eth0 up
ip -n {guest} route add default via 172.17.0.1
docker run -d --name c3 busybox sleep infinity
