# task 3
[ {broken} = h2 ] || exit 0
case {fault} in
    netmask) ip address add {b2}/24 dev br0; ip address del {b2}/30 dev br0 ;;
    route) ip route add {range1} via {b1} dev br0 onlink ;;
    obr0) ip link set obr0 up ;;
    port) ip link set obr0 master br0 ;;
    remote) ovs-vsctl set interface gre0 options:remote_ip={h1} ;;
    key) ovs-vsctl remove interface gre0 options key ;;
    forward) iptables -D FORWARD -s {range1} -j DROP ;;
    forwarding) sysctl -qw net.ipv4.ip_forward=1 ;;
    mtu) ip link set br0 mtu 1462 ;;
    duplicate) docker exec c2 sh -c 'ip address del {c21}/24 dev eth0; ip address add {c22}/24 dev eth0; ip route add default via {b2}'; ip neigh flush dev br0 ;;
    bypass) ip route replace {range1} via {b1} dev br0 onlink ;;
    neighbour) ip neigh del {b1} dev br0 ;;
esac
