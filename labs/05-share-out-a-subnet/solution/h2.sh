# task 3
mkdir -p /etc/systemd/system/docker.service.d
cat >/etc/systemd/system/docker.service.d/override.conf <<FILE
[Service]
ExecStart=
ExecStart=/usr/bin/dockerd -H fd:// -b {bridge} --fixed-cidr {range2}
FILE
systemctl daemon-reload
systemctl restart docker
for i in $(seq 1 {n2}); do docker run -d --name c$i busybox sleep infinity; done
