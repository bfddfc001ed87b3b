"""Real engines for tests and benchmarks: where to find them, how to start them, and how to say that one is missing."""
