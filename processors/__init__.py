"""The shell: the only place with loops, clocks and retries."""
