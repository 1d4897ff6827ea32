# task 1
# task 2
# What goes to the other range keeps its own address.
iptables -t nat -I POSTROUTING -s {range2} -d {range1} -j ACCEPT
iptables -I FORWARD -s {h1} -d {inside2} -j ACCEPT
# task 3
