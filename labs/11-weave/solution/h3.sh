# task 1
weave launch {h2}

# task 2
weave run {a3}/{bits} -d --name c1 busybox sleep infinity
