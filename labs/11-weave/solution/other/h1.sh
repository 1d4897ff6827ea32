# task 1
weave launch

# task 2
docker run -d --name c1 busybox sleep infinity
weave attach {a1}/{bits} c1

# task 4
ip address add {e1}/{bits} dev weave
