# task 1
# task 2
# task 3
iptables -D OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP
ip link set {bridge} mtu {inner}
# task 4
