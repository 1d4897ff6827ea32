# task 3
# Docker's own file, and containers made in the opposite order.
cat >/etc/docker/daemon.json <<FILE
{"bridge": "{bridge}", "fixed-cidr": "{range1}"}
FILE
systemctl restart docker
i={n1}
while [ $i -gt 0 ]; do
    docker create --name c$i ubuntu sleep infinity
    docker start c$i
    i=$((i - 1))
done
