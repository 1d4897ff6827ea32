# task 3
for chain in "INPUT -s" "OUTPUT -d"; do
    iptables -A $chain {h3} -p tcp -m multiport --ports 6783 -j DROP
    iptables -A $chain {h3} -p udp -m multiport --ports 6783,6784 -j DROP
done
# Until both routers have noticed, by silence.
for second in $(seq 100); do
    weave status connections | grep -qE '{h3}.* (established|pending)' || break
    sleep 1
done
