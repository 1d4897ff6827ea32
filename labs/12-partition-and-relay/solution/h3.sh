# task 1
weave launch {peer}
weave run {a3}/{bits} -d --name c1 busybox sleep infinity

# task 3
# A router that is launched anew finds the other one gone at once, without a minute of silence.
weave stop
iptables -I INPUT -s {h1} -p udp --dport 6783:6784 -j DROP
iptables -I INPUT -s {h1} -p tcp --dport 6783 -j DROP
iptables -I INPUT -s {h1} -p tcp --sport 6783 -j DROP
weave launch {h2}
for second in $(seq 100); do
    weave status connections | grep -q '{h2}.* established' && break
    sleep 0.2
done
