# task 1
# task 2
# task 3
ip route del {range1} via {h1}
ip route add {range1} via {door1} dev {bridge} onlink
# task 4
