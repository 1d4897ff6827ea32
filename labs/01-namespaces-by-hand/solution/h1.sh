# task 1
ip netns add {red}
ip link add to-{red} type veth peer name eth0 netns {red}
ip address add {red_gate}/{left_bits} dev to-{red}
ip link set to-{red} up
ip -n {red} address add {red_address}/{left_bits} dev eth0
ip -n {red} link set eth0 up
# task 2
ip netns add {blue}
ip link add to-{blue} type veth peer name eth0 netns {blue}
ip address add {blue_gate}/{right_bits} dev to-{blue}
ip link set to-{blue} up
ip -n {blue} address add {blue_address}/{right_bits} dev eth0
ip -n {blue} link set eth0 up
ip -n {red} route add default via {red_gate}
ip -n {blue} route add default via {blue_gate}
sysctl -w net.ipv4.ip_forward=1
# task 3
iptables -t nat -A POSTROUTING -s {left} -o eth0 -j MASQUERADE
# task 4
docker run -d --name c1 busybox sleep infinity
