"""The same jobs written by hand, as well as one would write them on each driver."""
