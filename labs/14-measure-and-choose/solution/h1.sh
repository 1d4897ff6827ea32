# task 1
weave launch
weave attach {w1}/{bits} c1
