# task 1
# task 2
# A policy that accepts, with a rule at the end that does not.
iptables -A FORWARD -i eth0 ! -s {range2} -o docker0 -j DROP
iptables -P FORWARD ACCEPT
# task 3
