# task 1
weave launch {h2}

# task 2
docker run -d --name c1 busybox sleep infinity
weave attach {a3}/{bits} c1
