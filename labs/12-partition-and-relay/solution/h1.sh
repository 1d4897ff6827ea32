# task 3
iptables -I INPUT -s {h3} -p udp --dport 6783:6784 -j DROP
