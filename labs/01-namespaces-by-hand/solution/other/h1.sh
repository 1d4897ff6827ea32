# task 1
# Ends are made in h1 and moved; loopbacks are up, too.
ip netns add {red}
ip link add v1 type veth peer name v2
ip link set v2 netns {red}
ifconfig v1 {red_gate} netmask 255.255.255.0 up
ip netns exec {red} ip link set lo up
ip netns exec {red} ifconfig v2 {red_address} netmask 255.255.255.0 up
# task 2
# {blue} knows the way to {red} only, and h1 has a host route in place of a network.
ip netns add {blue}
ip link add v3 type veth peer name v4
ip link set v4 netns {blue}
ip address add {blue_gate}/32 dev v3
ip link set v3 up
ip route add {blue_address}/32 dev v3 src {blue_gate}
ip netns exec {blue} ip link set lo up
ip netns exec {blue} ip address add {blue_address}/{right_bits} dev v4
ip netns exec {blue} ip link set v4 up
ip netns exec {blue} ip route add {left} via {blue_gate}
ip netns exec {red} ip route add {right} via {red_gate}
echo 1 >/proc/sys/net/ipv4/ip_forward
# task 3
ip netns exec {red} ip route add default via {red_gate}
iptables -t nat -I POSTROUTING -s {red_address} -o eth0 -j SNAT --to-source {h1}
iptables -I FORWARD -s {right} -o eth0 -j DROP
# task 4
docker run -d --name c1 ubuntu sleep infinity
