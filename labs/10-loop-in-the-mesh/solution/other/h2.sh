# task 1
# task 2
ovs-vsctl set bridge {switch} rstp_enable=true
# task 3
