"""Makes a plan from options and a space: what to try, with which resources."""
