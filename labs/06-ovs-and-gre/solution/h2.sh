# task 1
ovs-vsctl add-br {switch}
ovs-vsctl add-port {switch} gre0 -- set interface gre0 type=gre options:remote_ip={h1}
ip link set {switch} up
ip address add {trial2}/{bits} dev {switch}
# task 2
brctl addbr {bridge}
ifconfig {bridge} {door2} netmask {mask}
brctl addif {bridge} {switch}
ip link set {bridge} mtu {mtu}
ip address del {trial2}/{bits} dev {switch}
ip address add {trial2}/{bits} dev {bridge}
sysctl net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.{bridge}.send_redirects=0
# task 3
sed -i 's|^ExecStart=.*|& -b {bridge}|' /lib/systemd/system/docker.service
systemctl daemon-reload
systemctl restart docker
docker run -d --name c1 busybox sleep infinity
docker run -d --name c2 busybox sleep infinity
# task 4
ip route add {range1} via {door1} dev {bridge} onlink
# task 5
