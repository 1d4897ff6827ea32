# task 1
weave launch {h1}

# task 2
weave run {a2}/{bits} -d --name c1 busybox sleep infinity
