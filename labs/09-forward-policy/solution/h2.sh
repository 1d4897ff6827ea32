# task 1
# task 2
iptables -I DOCKER-USER -i eth0 -s {h1} -d {range2} -j ACCEPT
# task 3
