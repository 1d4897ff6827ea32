# task 1
# task 2
# task 3
sed -i 's|^ExecStart=.*|& --mtu {inner}|' /lib/systemd/system/docker.service
systemctl daemon-reload
systemctl restart docker
docker start c1 c2
# task 4
