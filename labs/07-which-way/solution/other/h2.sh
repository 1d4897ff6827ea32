# task 1
# task 2
# task 3
ip address add {door2} peer {door1} dev {bridge}
ip route replace {range1} via {door1} dev {bridge}
# task 4
