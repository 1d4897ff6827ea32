# task 3
case {way} in
    alder)
        ifdown eth0
        sed -i 's/eth0/br0/; $a bridge_ports eth0' /etc/network/interfaces
        ifup br0
        sed -i 's|^ExecStart=.*|& -b br0 --fixed-cidr {part2}|' /lib/systemd/system/docker.service
        systemctl daemon-reload
        systemctl restart docker
        docker run -d --name c1 busybox sleep infinity
        ;;
    birch)
        ovs-vsctl add-br obr0 -- add-port obr0 gre0 -- set interface gre0 type=gre options:remote_ip={h1}
        ip link set obr0 up
        brctl addbr br0
        ifconfig br0 {b2} netmask 255.255.255.0 up
        brctl addif br0 obr0
        ip link set br0 mtu 1462
        sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.br0.send_redirects=0
        sed -i 's|^ExecStart=.*|& -b br0|' /lib/systemd/system/docker.service
        systemctl daemon-reload
        systemctl restart docker
        docker run -d --name c1 busybox sleep infinity
        ip route add {range1} via {b1} dev br0 onlink
        ;;
    cedar)
        brctl addbr br0
        ifconfig br0 {b2} netmask 255.255.255.0 up
        sed -i 's|^ExecStart=.*|& -b br0|' /lib/systemd/system/docker.service
        systemctl daemon-reload
        systemctl restart docker
        docker run -d --name c1 busybox sleep infinity
        iptables -I DOCKER-USER -j ACCEPT
        ip route add {range1} via {h1} dev eth0
        ;;
    elm)
        weave launch
        docker run -d --name c1 busybox sleep infinity
        weave attach {w2}/24 c1
        ;;
    fir)
        ip link add br0 type bridge
        ip address add {far}/24 dev br0
        ip link set br0 up
        ip link add vx0 type vxlan id 4242 dstport 6784 local {h2}
        bridge fdb append 00:00:00:00:00:00 dev vx0 dst {h1}
        ip link set vx0 up
        brctl addif br0 vx0
        ip link set br0 mtu 1450
        sed -i 's|^ExecStart=.*|& -b br0 --fixed-cidr {half2} --mtu 1400|' /lib/systemd/system/docker.service
        systemctl daemon-reload
        systemctl restart docker
        docker run -d --name c1 busybox sleep infinity
        ;;
esac
