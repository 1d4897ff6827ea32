# task 1
weave launch

# task 2
weave run {a1}/{bits} -d --name c1 busybox sleep infinity
