# task 3
[ {broken} = h2 ] || exit 0
case {fault} in
    netmask) ifconfig br0 netmask 255.255.255.0; ip route add {range1} via {b1} dev br0 onlink ;;
    route) ip route add {b1} dev br0; ip route add {range1} via {b1} ;;
    obr0) ifconfig obr0 up ;;
    port) brctl addif br0 obr0 ;;
    remote) ovs-vsctl del-port obr0 gre0 -- add-port obr0 gre0 -- set interface gre0 type=gre options:remote_ip={h1} ;;
    key) ovs-vsctl del-port obr0 gre0 -- add-port obr0 gre1 -- set interface gre1 type=gre options:remote_ip={h1} ;;
    forward) iptables -I FORWARD -s {range1} -j ACCEPT ;;
    forwarding) echo 1 >/proc/sys/net/ipv4/ip_forward ;;
    mtu) ip route change {range1} via {b1} dev br0 onlink mtu 1462 ;;
    duplicate) docker rm -f c2; docker run -d --name c2 busybox sleep infinity; ip neigh flush dev br0 ;;
    bypass) ip route del {range1}; ip route add {range1} via {b1} dev br0 onlink ;;
    neighbour) ip neigh flush dev br0 nud permanent ;;
esac
