# task 1
weave launch {h1} {h2}
docker run -d --name c1 busybox sleep infinity
weave attach {a3}/{bits} c1

# task 3
for second in $(seq 100); do
    weave status connections | grep -qE '{h1}.* (established|pending)' || break
    sleep 1
done
