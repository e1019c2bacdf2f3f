"""Virtual time: an event loop whose clock jumps when nothing is left to do, and loopback inside the process."""
