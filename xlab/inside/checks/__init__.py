"""What a lab that somebody works in can be asked to show: the checks of exercises.

    places    nodes by the names that a check has for them: "h1/c1", "h1 netns red", 10.0.0.7
    kinds     a class a kind: `reaches`, `takes`, `survives` …, each with the shape of its arguments

The network is asked, by sockets that pid 1 makes in a node's network namespace, and no program of
the node's: who works there is root, and may have put anything in the place of `ping`.
"""
