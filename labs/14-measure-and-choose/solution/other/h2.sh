# task 1
weave launch
weave attach {w2}/{bits} c1
docker exec c1 ip link set ethwe mtu 1400
