# task 1
# task 2
iptables -I DOCKER-USER -i eth0 -s {h2} -d {range1} -j ACCEPT
# task 3
