# task 1
# task 2
ovs-vsctl set port gre1 protected=true -- set port gre3 protected=true
# task 3
