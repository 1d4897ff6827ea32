# task 1
weave launch {h1}

# task 2
docker run -d --name c1 busybox sleep infinity
weave attach {a2}/{bits} c1
