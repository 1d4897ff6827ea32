# task 3
[ {broken} = h1 ] || exit 0
case {fault} in
    netmask) ip address add {b1}/24 dev br0; ip address del {b1}/30 dev br0 ;;
    route) ip route add {range2} via {b2} dev br0 onlink ;;
    obr0) ip link set obr0 up ;;
    port) ip link set obr0 master br0 ;;
    remote) ovs-vsctl set interface gre0 options:remote_ip={h2} ;;
    key) ovs-vsctl remove interface gre0 options key ;;
    forward) iptables -D FORWARD -s {range2} -j DROP ;;
    forwarding) sysctl -qw net.ipv4.ip_forward=1 ;;
    mtu) ip link set br0 mtu 1462 ;;
    duplicate) docker exec c2 sh -c 'ip address del {c11}/24 dev eth0; ip address add {c12}/24 dev eth0; ip route add default via {b1}'; ip neigh flush dev br0 ;;
    bypass) ip route replace {range2} via {b2} dev br0 onlink ;;
    neighbour) ip neigh del {b2} dev br0 ;;
esac
