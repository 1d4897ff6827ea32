# task 1
weave launch

# task 2
weave run {a1}/{bits} -d --name c1 busybox sleep infinity

# task 4
weave expose {e1}/{bits}
