"""Speed and memory, measured side by side in one run, each number beside its analytic limit."""
