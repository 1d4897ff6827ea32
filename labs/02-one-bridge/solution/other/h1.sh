# task 1
# The bridge by brctl, addresses by ifconfig, ends moved into the namespaces.
brctl addbr {bridge}
ip netns add {one}
ip netns add {two}
ip netns add {three}
ip link add p1 type veth peer name q1
ip link add p2 type veth peer name q2
ip link add p3 type veth peer name q3
brctl addif {bridge} p1
brctl addif {bridge} p2
brctl addif {bridge} p3
ip link set q1 netns {one}
ip link set q2 netns {two}
ip link set q3 netns {three}
ifconfig p1 up
ifconfig p2 up
ifconfig p3 up
ip netns exec {one} ip address add {a1}/{bits} dev q1
ip netns exec {one} ip link set q1 up
ip netns exec {two} ip address add {a2}/{bits} dev q2
ip netns exec {two} ip link set q2 up
ip netns exec {three} ip address add {a3}/{bits} dev q3
ip netns exec {three} ip link set q3 up
ifconfig {bridge} up
# task 3
ifconfig {bridge} {bridge_address} netmask 255.255.255.192
# task 4
# The guest is there before the containers are, at the very end of the network.
ip netns add {guest}
ip link add q4 type veth peer name p4
ip link set q4 netns {guest}
brctl addif docker0 p4
ip link set p4 up
ip netns exec {guest} ip link set q4 up
ip netns exec {guest} ip address add 172.17.255.254/16 dev q4
ip netns exec {guest} route add default gw 172.17.0.1
docker run -d --name c1 ubuntu sleep infinity
docker run -d --name c2 ubuntu sleep infinity
docker run -d --name c3 ubuntu sleep infinity
