# task 1
# task 2
# task 3
ip address add {door1} peer {door2} dev {bridge}
ip route replace {range2} via {door2} dev {bridge}
# task 4
