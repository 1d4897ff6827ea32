"""What a person sees while something runs, and when it has ended: a screen a kind of experiment."""
