# task 1
# task 2
# task 3
ip route del {range2} via {h2}
ip route add {range2} via {door2} dev {bridge} onlink
# task 4
