# task 1
weave launch {h1}
weave attach {w2}/{bits} c1
