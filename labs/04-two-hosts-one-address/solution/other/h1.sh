# task 3
# Docker's own file in place of the drop-in, a small range at the end, and containers made anew.
docker rm -f c1 c2
rm /etc/systemd/system/docker.service.d/override.conf
cat >/etc/docker/daemon.json <<FILE
{"bridge": "{bridge}", "fixed-cidr": "{other1}"}
FILE
systemctl daemon-reload
systemctl restart docker
docker run -d --name c2 ubuntu sleep infinity
docker run -d --name c1 ubuntu sleep infinity
