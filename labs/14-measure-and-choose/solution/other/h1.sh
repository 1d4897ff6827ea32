# task 1
weave launch {h2}
weave attach {w1}/{bits} c1
docker exec c1 ip link set ethwe mtu 1400
