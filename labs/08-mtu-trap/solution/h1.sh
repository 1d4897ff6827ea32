# task 1
# task 2
# task 3
ip link set {bridge} mtu {inner}
# task 4
