"""What makes an emulated host a machine to work on: the commands a person types there.

    client      a command as it is typed: docker, weave, systemctl, service, journalctl, reboot
    desk        pid 1's end of it: which command, in which host
    docker      the docker command              over lab.docker, the emulated daemon
    weave       the weave command               over lab.weave
    systemd     systemctl, service, journalctl  over unit files (units) and their options (dockerd)
    tools       these commands as files, which lie on top of the machine's /usr in each host; and
                what is said of the internet, which lies there in containers, too
    machines    all of it for a lab that stays

Everything else a person types there is the machine's own: ip, brctl, ifup, ifconfig, ovs-vsctl.
"""
