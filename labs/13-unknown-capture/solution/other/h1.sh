# task 3
case {way} in
    alder)
        ifdown eth0
        sed -i 's/eth0/br0/; $a bridge_ports eth0' /etc/network/interfaces
        ifup br0
        sed -i 's|^ExecStart=.*|& -b br0 --fixed-cidr {part1}|' /lib/systemd/system/docker.service
        systemctl daemon-reload
        systemctl restart docker
        docker run -d --name c1 busybox sleep infinity
        ;;
    birch)
        ovs-vsctl add-br obr0 -- add-port obr0 gre0 -- set interface gre0 type=gre options:remote_ip={h2}
        ip link set obr0 up
        brctl addbr br0
        ifconfig br0 {b1} netmask 255.255.255.0 up
        brctl addif br0 obr0
        ip link set br0 mtu 1462
        sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.br0.send_redirects=0
        sed -i 's|^ExecStart=.*|& -b br0|' /lib/systemd/system/docker.service
        systemctl daemon-reload
        systemctl restart docker
        docker run -d --name c1 busybox sleep infinity
        ip route add {range2} via {b2} dev br0 onlink
        ;;
    cedar)
        brctl addbr br0
        ifconfig br0 {b1} netmask 255.255.255.0 up
        sed -i 's|^ExecStart=.*|& -b br0|' /lib/systemd/system/docker.service
        systemctl daemon-reload
        systemctl restart docker
        docker run -d --name c1 busybox sleep infinity
        iptables -I DOCKER-USER -j ACCEPT
        ip route add {range2} via {h2} dev eth0
        ;;
    elm)
        weave launch {h2}
        docker run -d --name c1 busybox sleep infinity
        weave attach {w1}/24 c1
        ;;
    fir)
        ip link add br0 type bridge
        ip address add {b1}/24 dev br0
        ip link set br0 up
        ip link add vx0 type vxlan id 4242 dstport 6784 local {h1}
        bridge fdb append 00:00:00:00:00:00 dev vx0 dst {h2}
        ip link set vx0 up
        brctl addif br0 vx0
        ip link set br0 mtu 1450
        sed -i 's|^ExecStart=.*|& -b br0 --fixed-cidr {half1} --mtu 1400|' /lib/systemd/system/docker.service
        systemctl daemon-reload
        systemctl restart docker
        docker run -d --name c1 busybox sleep infinity
        ;;
esac
