# task 3
case {way} in
    alder)
        ip link add br0 address $(cat /sys/class/net/eth0/address) type bridge
        ip address flush dev eth0
        ip link set eth0 master br0
        ip address add {h1}/24 dev br0
        ip link set br0 up
        ip route add default via {gw}
        sed -i 's|^ExecStart=.*|& -b br0 --fixed-cidr {part1}|' /lib/systemd/system/docker.service
        systemctl daemon-reload
        systemctl restart docker
        docker run -d --name c1 busybox sleep infinity
        ;;
    birch)
        ip link add br0 type bridge
        ip address add {b1}/24 dev br0
        ip link set br0 up
        ovs-vsctl add-br obr0 -- add-port obr0 gre0 -- set interface gre0 type=gre options:remote_ip={h2}
        ip link set obr0 up master br0
        sed -i 's|^ExecStart=.*|& -b br0 --fixed-cidr {half1} --mtu 1462|' /lib/systemd/system/docker.service
        systemctl daemon-reload
        systemctl restart docker
        docker run -d --name c1 busybox sleep infinity
        ;;
    cedar)
        sed -i 's|^ExecStart=.*|& --bip {b1}/24|' /lib/systemd/system/docker.service
        systemctl daemon-reload
        systemctl restart docker
        docker run -d --name c1 busybox sleep infinity
        iptables -P FORWARD ACCEPT
        ip route add {range2} via {h2}
        ;;
    elm)
        weave launch
        weave run {w1}/24 -d --name c1 busybox sleep infinity
        ;;
    fir)
        ip link add br0 type bridge
        ip address add {b1}/24 dev br0
        ip link set br0 up
        ip link add vx0 type vxlan id 7 remote {h2} local {h1} dstport 6784
        ip link set vx0 up master br0
        sed -i 's|^ExecStart=.*|& -b br0 --fixed-cidr {half1} --mtu 1450|' /lib/systemd/system/docker.service
        systemctl daemon-reload
        systemctl restart docker
        docker run -d --name c1 busybox sleep infinity
        ;;
esac
